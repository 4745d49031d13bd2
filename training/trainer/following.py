"""Reads a run's files as they grow. Small reads on the event loop: a worker has one run at a time."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from training.ports import Look, Run
from training.trainer import checkpoints, keeper, trainer_log

MOST_READ_BYTES = 4 << 20


class GrowingFile:
    """A file read from where the last reading ended; from its beginning once it was replaced or cut."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0
        self.read_bytes = 0
        self.is_anew = False

    def read(self) -> bytes:
        """What is new, at most MOST_READ_BYTES. `is_anew` tells whether it is from a beginning."""
        self.is_anew = False
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_ino != self._inode or stat.st_size < self._offset:
                self._inode, self._offset, self.is_anew = stat.st_ino, 0, True
            file.seek(self._offset)
            content = file.read(MOST_READ_BYTES)
            self._offset += len(content)
            self.read_bytes += len(content)
            return content
        return b""


class FileFollower:
    """A Follower of one run; another run of the same folder needs another."""

    def __init__(self, folder: Path, output: Path, *, find: Callable[[Path], Run]) -> None:
        self._folder = folder
        self._output = output
        self._find = find
        self._lines = GrowingFile(output / "trainer_log.jsonl")
        self._log = GrowingFile(folder / "trainer.log")
        self._rest = b""
        self._beginning = b""
        self._known: set[int] = set()
        self._examples: int | None = None

    async def look(self) -> Look:
        """See Follower. The run's state is read first, so that a run that ended has nothing more to say."""
        run = self._find(self._folder)
        return Look(
            run=run,
            metrics=self._metrics(),
            checkpoints=await asyncio.to_thread(self._checkpoints),
            examples=self._said_examples(),
            log_bytes=self._log.read_bytes + self._lines.read_bytes,
            cpu_ticks=await asyncio.to_thread(_cpu_ticks, run.pid) if run.state == "alive" else 0,
        )

    def _metrics(self) -> tuple[Mapping[str, float], ...]:
        content = self._lines.read()
        if self._lines.is_anew:
            self._rest = b""
        lines, self._rest = trainer_log.split(self._rest, content)
        return tuple(numbers for line in lines if (numbers := trainer_log.metrics(line)) is not None)

    def _said_examples(self) -> int | None:
        content = self._log.read()
        if self._examples is None:
            self._beginning = (self._beginning + content)[-MOST_READ_BYTES:]
            self._examples = trainer_log.examples(self._beginning.decode(errors="replace"))
            if self._examples is not None:
                self._beginning = b""
        return self._examples

    def _checkpoints(self) -> tuple[int, ...]:
        """Whole ones that were not before; one that is being removed meanwhile is none."""
        fresh = []
        for step, folder in sorted(checkpoints.all_of(self._output).items()):
            with suppress(FileNotFoundError):
                if step not in self._known and checkpoints.is_whole(folder):
                    fresh.append(step)
        self._known.update(fresh)
        return tuple(fresh)


def _cpu_ticks(root: int) -> int:
    """What the living tree has used, in ticks of user and system time."""
    ticks = 0
    for pid in keeper.descendants(root):
        stat = keeper.stat_of(pid)
        if stat is not None:
            ticks += int(stat[11]) + int(stat[12])
    return ticks
