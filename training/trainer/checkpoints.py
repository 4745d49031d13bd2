"""Which checkpoint a run may be resumed from: the newest whole one.

transformers writes a checkpoint's weights first and `trainer_state.json` last, into the folder itself, so a
kill in between leaves half of one. A checkpoint of `save_only_model` has no optimizer: resuming from it ends
with 0 and starts the learning rate anew, which nobody would notice.
"""

import json
import re
import shutil
import zipfile
from collections.abc import Set as AbstractSet
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d{1,12})")
UNFINISHED = "checkpoint-is-incomplete.txt"
WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
WEIGHTS_OLD = (
    "adapter_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model_fsdp_0",
)
OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "optimizer_0")


def lacking(names: AbstractSet[str]) -> str:
    """What a checkpoint with these entries lacks; empty where it is whole by its names.

    DeepSpeed keeps the optimizer, and ZeRO-3 the weights, in the folder that the file `latest` names.
    """
    is_deepspeed = "latest" in names
    has = {
        "its end": UNFINISHED not in names,
        "trainer_state.json": "trainer_state.json" in names,
        "weights": is_deepspeed or not names.isdisjoint(WEIGHTS + WEIGHTS_OLD),
        "the optimizer's state": is_deepspeed or not names.isdisjoint(OPTIMIZERS),
        "the scheduler's state": is_deepspeed or "scheduler.pt" in names,
        "the state of its dice": any(name.startswith("rng_state") for name in names),
    }
    return next((what for what, is_there in has.items() if not is_there), "")


def step_of(name: str) -> int | None:
    """The step in a checkpoint's name, or None for any other name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def all_of(output: Path) -> dict[int, Path]:
    """The checkpoints in a run's output by step, whole or not."""
    if not output.is_dir():
        return {}
    steps = {entry: step_of(entry.name) for entry in output.iterdir() if entry.is_dir()}
    return {step: entry for entry, step in steps.items() if step is not None}


def is_whole(checkpoint: Path) -> bool:
    """Everything that resuming needs is there, and no file ends before its end."""
    names = {entry.name for entry in checkpoint.iterdir()}
    if lacking(names):
        return False
    if "latest" in names and not _has_files(checkpoint / (checkpoint / "latest").read_text().strip()):
        return False
    if any(name.endswith(".pt") and not zipfile.is_zipfile(checkpoint / name) for name in names):
        return False
    if not all(_is_whole_safetensors(checkpoint / name) for name in names if name.endswith(".safetensors")):
        return False
    return _step_in_state(checkpoint) == step_of(checkpoint.name)


def newest_whole(output: Path) -> Path | None:
    """Where to resume, or None: then start anew."""
    found = all_of(output)
    return next((found[step] for step in sorted(found, reverse=True) if is_whole(found[step])), None)


def remove_broken(output: Path) -> None:
    """Checkpoints that are not whole go: nothing may resume from them by chance."""
    for checkpoint in all_of(output).values():
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint)


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _is_whole_safetensors(path: Path) -> bool:
    """The header, whose length is the first eight bytes, says where the last tensor ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return size == 8 + length + max(ends, default=0)


def _step_in_state(checkpoint: Path) -> int | None:
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text())
    except ValueError:
        return None
    step = state.get("global_step") if isinstance(state, dict) else None
    return step if isinstance(step, int) else None
