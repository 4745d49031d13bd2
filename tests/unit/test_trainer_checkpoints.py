"""Which checkpoint may be resumed from: any file missing or cut makes it none."""

import json
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.trainer.checkpoints import is_whole, lacking, newest_whole, remove_broken

WHOLE = frozenset(
    {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
)


def checkpoint(output: Path, step: int) -> Path:
    """A whole one, as transformers writes it."""
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": {"data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + b"\0\0\0\0"
    (folder / "adapter_model.safetensors").write_bytes(weights)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("state", "x" * 100)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


@given(st.frozensets(st.sampled_from(sorted(WHOLE))))
def test_it_is_whole_with_all_of_its_files_and_no_fewer(names: frozenset[str]) -> None:
    """What it lacks is named."""
    assert (lacking(names) == "") == (names == WHOLE)


def test_one_of_save_only_model_is_not_resumed_from() -> None:
    """It would start the learning rate anew, with exit code 0."""
    assert lacking({"model.safetensors", "trainer_state.json"}) == "the optimizer's state"


def test_one_of_deepspeed_is_whole_with_the_folder_that_latest_names(tmp_path: Path) -> None:
    """Weights and optimizer of ZeRO-3 lie there."""
    folder = checkpoint(tmp_path, 5)
    for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt"):
        (folder / name).unlink()
    (folder / "latest").write_text("global_step5\n")
    assert not is_whole(folder)
    (folder / "global_step5").mkdir()
    (folder / "global_step5" / "mp_rank_00_model_states.pt").write_bytes(b"x")
    assert is_whole(folder)


@pytest.mark.parametrize("name", sorted(WHOLE - {"rng_state.pth"}))
@pytest.mark.parametrize("left", [0, 1, 30])
def test_a_file_that_ends_too_early_makes_it_none(tmp_path: Path, name: str, left: int) -> None:
    """The one before it is taken, and the broken one goes."""
    older = checkpoint(tmp_path, 5)
    newer = checkpoint(tmp_path, 10)
    assert newest_whole(tmp_path) == newer

    content = (newer / name).read_bytes()
    (newer / name).write_bytes(content[: min(left, len(content) - 1)])
    assert newest_whole(tmp_path) == older
    remove_broken(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_the_newest_is_that_of_the_largest_step(tmp_path: Path) -> None:
    """Not of the last name in the alphabet; a just-in-time one being written is none."""
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-100" / "checkpoint-is-incomplete.txt").write_text("")

    assert newest_whole(tmp_path) == tmp_path / "checkpoint-10"
    assert newest_whole(tmp_path / "nowhere") is None
