"""CPU time of a process and everything below it, on Linux.

A JSON request costs tens of microseconds while `/proc/<pid>/stat` counts in ticks of 10 ms, so each living
process is read from its POSIX CPU clock: nanoseconds, all its threads, those that ended included. Children
that ended and were waited for are in their parent's `cutime` and `cstime`, in ticks. A process that loses its
parent leaves the tree; none of the contenders has such.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# What clock_getcpuclockid gives: the complement of the pid, and the kind of clock in the three low bits.
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True, slots=True)
class Stat:
    """What `/proc/<pid>/stat` says of one process, in ticks."""

    pid: int
    parent: int
    own_ticks: int
    ended_children_ticks: int


def parse_stat(text: str) -> Stat:
    """Read one line of `/proc/<pid>/stat`; the name in parentheses may itself hold spaces and parentheses."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(
        pid=int(head.split(" ", 1)[0]),
        parent=int(fields[1]),
        own_ticks=int(fields[11]) + int(fields[12]),
        ended_children_ticks=int(fields[13]) + int(fields[14]),
    )


def tree(root: int, stats: dict[int, Stat]) -> list[Stat]:
    """The process `root` and its living descendants."""
    children: dict[int, list[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found: list[Stat] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in stats:
            found.append(stats[pid])
            waiting.extend(children.get(pid, ()))
    return found


def cpu_seconds(root: int) -> float:
    """Seconds of CPU that the tree under `root` has used since it began; ProcessLookupError if it is gone."""
    members = tree(root, _all_stats())
    if not members:
        raise ProcessLookupError(f"process {root} is not running")
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return sum(_own_seconds(stat, tick_s) + stat.ended_children_ticks * tick_s for stat in members)


def _all_stats() -> dict[int, Stat]:
    stats: dict[int, Stat] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = parse_stat((entry / "stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        stats[stat.pid] = stat
    return stats


def _own_seconds(stat: Stat, tick_s: float) -> float:
    try:
        return time.clock_gettime((~stat.pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return stat.own_ticks * tick_s
