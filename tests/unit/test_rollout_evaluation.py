"""A version that its evaluation refused is not rolled out; an adapter from elsewhere has none."""

from pathlib import Path

import pytest

from gateway.rollout.adapter_config import read_adapter_config
from gateway.rollout.errors import RolloutRefused
from training.evaluation.evaluate import keep
from training.evaluation.gate import GateRule, Verdict
from training.evaluation.measured import Measured, Template
from training.evaluation.report import NAME, Evaluation


def evaluated(folder: Path, verdict: Verdict) -> None:
    keep(folder, Evaluation("mira--2", "", 1.0, Measured((), Template(1)), GateRule(), verdict))


async def test_what_was_refused_is_refused_again_with_the_same_reasons(tmp_path: Path) -> None:
    """Whoever starts the rollout reads why."""
    (tmp_path / "adapter_config.json").write_text("{}")
    assert b"{}" == await read_adapter_config(str(tmp_path))

    evaluated(tmp_path, Verdict("waits_for_approval"))
    assert b"{}" == await read_adapter_config(str(tmp_path))

    evaluated(tmp_path, Verdict("refused", ("its loss is worse", "its template differs")))
    with pytest.raises(RolloutRefused, match="its loss is worse; its template differs"):
        await read_adapter_config(str(tmp_path))


async def test_an_evaluation_that_cannot_be_read_is_no_pass(tmp_path: Path) -> None:
    """Nobody knows what it said."""
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / NAME).write_text("{")
    with pytest.raises(RolloutRefused, match="cannot be read"):
        await read_adapter_config(str(tmp_path))
