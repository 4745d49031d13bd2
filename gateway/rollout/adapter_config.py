"""Reading an adapter's own description from a folder, and what its evaluation said if it was trained here."""

import asyncio
from pathlib import Path

from gateway.rollout.errors import RolloutRefused
from gateway.rollout.precheck import CONFIG, MAX_CONFIG
from training.evaluation.evaluate import kept


async def read_adapter_config(folder: str) -> bytes:
    """Its `adapter_config.json`. Raises `RolloutRefused` where that cannot be read, or it was refused."""
    return await asyncio.to_thread(_read, Path(folder) / CONFIG)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            config = file.read(MAX_CONFIG + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RolloutRefused(
            f"{path} cannot be read from here ({reason}): give local_path, where the gateway finds the same "
            "adapter, or unchecked to go on without a look at it",
            status=400,
        ) from error
    if len(config) > MAX_CONFIG:
        raise RolloutRefused(f"{path} is larger than {MAX_CONFIG} bytes", status=400)
    _check_evaluation(path.parent)
    return config


def _check_evaluation(folder: Path) -> None:
    """A version that was trained here has one; an adapter from elsewhere has none, as its owner likes."""
    try:
        evaluation = kept(folder)
    except (OSError, ValueError) as error:
        raise RolloutRefused(f"{folder.name}: its evaluation cannot be read: {error}") from error
    if evaluation is not None and evaluation.is_refused:
        reasons = "; ".join(evaluation.verdict.reasons)
        raise RolloutRefused(f"{folder.name} was refused by its evaluation: {reasons}")
