"""Measuring as a process: what it says, what it leaves behind, what becomes of one that dies or hangs."""

import sys
from pathlib import Path

import pytest

from training.errors import ProbeFailed
from training.evaluation import evaluate as use_case
from training.evaluation.evaluate import Candidate, Probe, evaluate, kept
from training.evaluation.gate import GateRule
from training.evaluation.order import Order
from training.evaluation.report import Evaluation

ORDER = Order(
    model="m", new="n", previous=None, served="m", kind="lora", template="smollm2", cutoff_len=64, examples=()
)
MEASURED = """
losses = [dict(contender=c, nats_per_token=n, tokens=900) for c, n in (("base", 2.0), ("new", 1.0))]
told = dict(losses=losses, template=dict(compared=3))
print('{"step": "loss"}')
print("a library's line")
open(sys.argv[2], "w").write(json.dumps(told))
"""


def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Candidate:
    """What stands for the probe: the real one needs an environment of gigabytes (tests/engines has it)."""
    path = tmp_path / "probe.py"
    path.write_text(f"import json, sys, time\n{text}")
    monkeypatch.setattr(use_case, "PROBE", path)
    folder = tmp_path / "output"
    folder.mkdir(exist_ok=True)
    return Candidate("mira--2", "mira--1", folder)


async def run(candidate: Candidate, within_s: float = 30.0, steps: list[object] | None = None) -> Evaluation:
    """With this project's own Python."""
    probe = Probe(Path(sys.executable), within_s)
    heard = [] if steps is None else steps
    return await evaluate(candidate, ORDER, GateRule(), probe, now=lambda: 5.0, on_step=heard.append)


async def test_it_is_measured_judged_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is left: what users said stood in the order."""
    candidate, steps = program(tmp_path, monkeypatch, MEASURED), list[object]()
    found = await run(candidate, steps=steps)

    assert found == kept(candidate.folder)
    assert ("waits_for_approval", "mira--1", 5.0) == (found.verdict.outcome, found.previous, found.at)
    assert [{"step": "loss"}] == steps
    assert ["evaluation.json"] == [path.name for path in candidate.folder.iterdir()]
    assert kept(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sys.exit('no such model')", "no such model"),
        ("sys.exit(3)", "it ended with 3"),
        ("", "wrote nothing"),
        ("time.sleep(60)", "longer than 1 s"),
    ],
)
async def test_what_cannot_be_measured_has_no_verdict(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be tried again."""
    candidate = program(tmp_path, monkeypatch, text)
    with pytest.raises(ProbeFailed, match=says):
        await run(candidate, within_s=1.0 if "sleep" in text else 30.0)

    assert [] == list(candidate.folder.iterdir())
