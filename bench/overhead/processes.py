"""Child processes of the benchmark: pinned to a core before they start, ended with all that they started."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STOP_LIMIT_S = 5
_TAIL_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the contender may use, and which the upstream, the client and the store."""

    contender: frozenset[int]
    others: frozenset[int]


def share_cores(available: set[int]) -> Cores:
    """One core for the contender, another for everything else; with a single core there is no choice."""
    ordered = sorted(available)
    return Cores(contender=frozenset(ordered[:1]), others=frozenset(ordered[1:2] or ordered[:1]))


@contextlib.contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Run on these cores; a child started meanwhile inherits them before its runtime counts its cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def child(
    command: Sequence[str], *, cores: frozenset[int], log: Path, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its own group, its output in `log`; leaving the block ends the whole group."""
    with pinned(cores), log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=stdin, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process's group, first politely; what is left of the group after STOP_LIMIT_S is killed."""
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_LIMIT_S)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    _close(process.stdin)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_line(log: Path) -> str:
    """The last line that says something in a process's output."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in stream.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of it has ended already
        os.killpg(group, number)


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            stream.close()
