"""Runs over /proc: keepers started, found, followed and ended on this machine (Linux)."""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast, get_args

from training.errors import InvalidJob, RunFault
from training.job import JobError
from training.ports import Follower, Plan, Run, Started
from training.trainer import cause, checkpoints, keeper
from training.trainer.following import FileFollower

OUTPUT = "output"
LOG_BYTES = 32 << 20
TAIL_BYTES = 256 << 10
ANSWERS_WITHIN_S = 60.0
BEYOND_S = 30.0
"""A keeper that was told to end has this long beyond its grace before it is ended itself."""


class Processes:
    """The Runs of this machine. `devices` are the GPUs that every run here has, none of them for the CPU."""

    def __init__(
        self, locks: Path, devices: tuple[str, ...], *, grace_s: float = 10.0, patience_s: float = 300.0
    ) -> None:
        self._locks = locks
        self._devices = devices
        self._grace_s = grace_s
        self._patience_s = patience_s

    async def find(self, folder: Path) -> Run:
        """See Runs."""
        return found(folder)

    async def clear(self, folder: Path) -> Path | None:
        """See Runs."""
        await asyncio.to_thread(end_strays, folder)
        return await asyncio.to_thread(_cleared, folder)

    async def start(self, folder: Path, plan: Plan, *, fence: int) -> Started:
        """See Runs. Raises RunFault when the keeper says nothing."""
        order = keeper.Order(
            folder=str(await asyncio.to_thread(_written, folder, plan.files)),
            command=list(plan.command),
            environment={**plan.environment, "CUDA_VISIBLE_DEVICES": ",".join(self._devices)},
            locks=[str(folder / "keeper.lock"), *(str(path) for path in self._device_locks())],
            fence=fence,
            grace_s=self._grace_s,
            patience_s=self._patience_s,
            log_bytes=LOG_BYTES,
        )
        return await _asked(json.dumps(order).encode(), folder)

    async def stop(self, folder: Path, run: Run, *, patient: bool = False) -> Run:
        """See Runs."""
        if _is_alive(run.pid, run.start):
            keeper.send(run.pid, signal.SIGUSR1 if patient else signal.SIGTERM)
        allowed_s = BEYOND_S + (self._patience_s if patient else self._grace_s)
        deadline = time.monotonic() + allowed_s
        while _is_alive(run.pid, run.start):
            if time.monotonic() > deadline:
                keeper.send(run.pid, signal.SIGKILL)
                deadline += BEYOND_S
            await asyncio.sleep(0.05)
        await asyncio.to_thread(end_strays, folder)
        return found(folder)

    def follow(self, folder: Path) -> Follower:
        """See Runs."""
        return FileFollower(folder, folder / OUTPUT, find=found)

    async def cause(self, folder: Path, code: int) -> JobError:
        """See Runs."""
        return cause.cause(await asyncio.to_thread(_tail, folder), code)

    async def is_complete(self, folder: Path) -> bool:
        """See Runs."""
        output = folder / OUTPUT
        try:
            state = json.loads((output / "trainer_state.json").read_text())
            is_last = state["global_step"] >= state["max_steps"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
        names = {entry.name for entry in output.iterdir()}
        return is_last and bool(names.intersection(checkpoints.WEIGHTS + checkpoints.WEIGHTS_OLD))

    def _device_locks(self) -> list[Path]:
        """One trainer at a time has a GPU of this machine, whatever the leases say."""
        machine = keeper.boot().partition(" ")[0]
        return [self._locks / f"{machine}-{name}.lock" for name in sorted(self._devices) or ["cpu"]]


def found(folder: Path) -> Run:
    """The newest run of a folder, from its files and /proc."""
    who, ended = _read(folder / "pid.json"), _read(folder / "rc.json")
    if who is None and ended is None:
        return Run("none")
    pid, start = (int(who["pid"]), int(who["start"])) if who else (0, 0)
    if who and who["boot"] == keeper.boot() and _is_alive(pid, start):
        return Run("alive", pid, start)
    ended = _read(folder / "rc.json")  # it may have been written between the two looks
    if ended is None:
        return Run("lost", pid, start)
    return Run("ended", pid, start, code=int(ended["rc"]), is_stopped=bool(ended["stopped"]))


def end_strays(folder: Path) -> None:
    """End by its id whatever runs for this folder with no keeper that could."""
    mark = f"{keeper.MARK}={folder.resolve()}".encode()
    while left := [pid for pid in keeper.pids() if pid != os.getpid() and _has(pid, mark)]:
        for pid in left:
            keeper.send(pid, signal.SIGKILL)
        time.sleep(0.02)


def _has(pid: int, mark: bytes) -> bool:
    return mark in keeper.environment_of(pid)


def _is_alive(pid: int, start: int) -> bool:
    return pid > 0 and keeper.start_of(pid) == start


def _cleared(folder: Path) -> Path | None:
    output = folder / OUTPUT
    checkpoints.remove_broken(output)
    newest = checkpoints.newest_whole(output)
    if newest is None and output.exists():
        shutil.rmtree(output)
    (output / "trainer_log.jsonl").unlink(missing_ok=True)
    return newest


def _read(path: Path) -> Mapping[str, Any] | None:
    with suppress(FileNotFoundError):
        content: Mapping[str, Any] = json.loads(path.read_text())
        return content
    return None


def _written(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write a plan's files; the folder without links, as it marks its processes."""
    within = folder.resolve()
    for name, content in files.items():
        path = (within / name).resolve()
        if not path.is_relative_to(within):
            raise InvalidJob("recipe", f"its file {name} lies outside of the job's folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        keeper.write_whole(path, content)
    return within


def _tail(folder: Path) -> str:
    """The end of the log, with the part before where that was just begun."""
    content = b""
    for name in ("trainer.log.1", "trainer.log"):
        with suppress(FileNotFoundError), (folder / name).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            content += file.read()
    return content[-TAIL_BYTES:].decode(errors="replace")


async def _asked(order: bytes, folder: Path) -> Started:
    """Start a keeper in a session of its own and hear its word."""
    with (folder / "keeper.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", keeper.__file__,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            process.stdin.write(order)
            process.stdin.close()
            word = (await process.stdout.readline()).decode().strip()
            await process.stdout.read()
            await process.wait()
    except (TimeoutError, OSError):
        word = ""
    for known in get_args(Started):
        if word == known:
            return cast("Started", word)
    with suppress(ProcessLookupError):
        process.kill()
    said = (folder / "keeper.log").read_text()[-500:]
    raise RunFault(f"the keeper of {folder.name} did not start: {said}")
