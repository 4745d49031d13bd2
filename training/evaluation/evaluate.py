"""Use case: measure a version that was just trained, judge it, and keep both with it.

The probe runs as a program in LLaMA-Factory's environment. What it needs is written before it starts and what
it found is read when it has ended, so a worker that dies in between begins again and loses nothing.
"""

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from training.errors import ProbeFailed
from training.evaluation.gate import GateRule, judge
from training.evaluation.measured import Measured
from training.evaluation.order import Order
from training.evaluation.report import NAME, Evaluation

PROBE = Path(__file__).with_name("probe.py")
WITHIN_S = 3600.0
_TOLD_CHARS = 2_000
_ENDS_WITHIN_S = 10.0


class Probe(msgspec.Struct, frozen=True):
    """The program that measures."""

    python: Path
    """LLaMA-Factory's interpreter."""
    within_s: float = WITHIN_S


class Candidate(msgspec.Struct, frozen=True):
    """The version that is measured."""

    version: str
    previous: str
    """The version before; empty where it is the first of its alias."""
    folder: Path
    """Its own, where its evaluation goes."""


async def evaluate(
    candidate: Candidate,
    order: Order,
    rule: GateRule,
    probe: Probe,
    *,
    now: Callable[[], float],
    on_step: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Evaluation:
    """Measure, judge, and write `evaluation.json` beside the version.

    Raises ProbeFailed, also where it takes longer than it may.
    """
    folder = candidate.folder
    asked, told = folder / "evaluation.order.json", folder / "evaluation.measured.json"
    asked.write_bytes(msgspec.json.encode(order))
    told.unlink(missing_ok=True)
    try:
        await _run(probe, asked, told, on_step=on_step)
        measured = _read(told)
    finally:
        asked.unlink()  # texts of users stand in it
        told.unlink(missing_ok=True)
    verdict = judge(measured, rule)
    evaluation = Evaluation(candidate.version, candidate.previous, now(), measured, rule, verdict)
    keep(folder, evaluation)
    return evaluation


def keep(folder: Path, evaluation: Evaluation) -> None:
    """Write it whole or not at all."""
    part = folder / f"{NAME}.part"
    with part.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(evaluation), indent=1))
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / NAME)


def kept(folder: Path) -> Evaluation | None:
    """That of a version; None where there is none."""
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=Evaluation)
    except FileNotFoundError:
        return None


def _read(told: Path) -> Measured:
    try:
        return msgspec.json.decode(told.read_bytes(), type=Measured)
    except FileNotFoundError:
        raise ProbeFailed("it ended well and wrote nothing") from None


async def _run(probe: Probe, asked: Path, told: Path, *, on_step: Callable[[dict[str, Any]], None]) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = await asyncio.create_subprocess_exec(
        str(probe.python),
        str(PROBE),
        str(asked),
        str(told),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    tail = bytearray()
    try:
        async with asyncio.timeout(probe.within_s), asyncio.TaskGroup() as tasks:
            tasks.create_task(_steps(process, on_step))
            tasks.create_task(_tail(process, tail))
            await process.wait()
    except TimeoutError:
        raise ProbeFailed(f"it took longer than {probe.within_s:g} s") from None
    finally:
        await _ended(process)
    if process.returncode:
        # What it said last: names and reasons; it prints no texts.
        said = bytes(tail).decode(errors="replace").strip().splitlines()
        raise ProbeFailed(said[-1][-_TOLD_CHARS:] if said else f"it ended with {process.returncode}")


async def _steps(process: asyncio.subprocess.Process, on_step: Callable[[dict[str, Any]], None]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        with suppress(ValueError):  # libraries print there, too
            step = json.loads(line)
            if isinstance(step, dict):
                on_step(step)


async def _tail(process: asyncio.subprocess.Process, tail: bytearray) -> None:
    assert process.stderr is not None
    while data := await process.stderr.read(65_536):
        tail += data
        del tail[: -2 * _TOLD_CHARS]


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _ENDS_WITHIN_S)
    except TimeoutError:
        process.kill()
        await process.wait()
