"""A folder that leads to what was made of some files, whole whenever it is there; standard library only.

The folder is a link to a neighbour named after the files' digest, and becomes it last: at every moment it
leads to the whole of before, to the whole of now, or to nothing. An interrupted run therefore breaks nothing
and starts anew, a changed file makes a new neighbour, and what still runs in the old one finishes there: what
no link leads to is removed at the start of the next run.
"""

import contextlib
import fcntl
import hashlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LinkedFolder:
    """Something that `command` makes at `path`.

    `what` is its name for people; `is_whole` says of a folder whether what counts is still in it.
    """

    path: Path
    what: str
    command: str
    is_whole: Callable[[Path], bool]

    def keep(self, made_of: Sequence[Path], *, build: Callable[[Path], None]) -> None:
        """Have it made of these files, unless it is; ends the process with what to do if that cannot be."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with alone(self.path.with_name(f"{self.path.name}.lock"), self.command):
                self.publish(f"{self.path.name}-{digest(made_of)}", build=build)
        except KeyboardInterrupt:
            sys.exit(f"\ninterrupted; nothing was changed in {self.path}. Run it again with: {self.command}")

    def publish(self, name: str, *, build: Callable[[Path], None]) -> None:
        """Let it lead to its neighbour `name`, which `build` makes unless it is there whole."""
        if self.path.exists() and not self.path.is_symlink():
            sys.exit(
                f"{self.path} is not of this program's making; move it away, then run {self.command} again"
            )
        current = self.path.readlink().name if self.path.is_symlink() else None
        for neighbour in self.path.parent.glob(f"{self.path.name}-*"):
            if neighbour.name != current and is_ours(neighbour.name, self.path.name):
                shutil.rmtree(neighbour)
        if current == name and self.is_whole(self.path):
            print(f"{self.what} is there: {self.path}")
            return
        if current == name:
            self.path.unlink()
        build(self.path.with_name(name))
        link = self.path.with_name(f"{self.path.name}.new")
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.replace(self.path)
        print(f"{self.what} is made: {self.path}")


def digest(paths: Sequence[Path]) -> str:
    """What something is made of, in ten characters."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:10]


def is_ours(neighbour: str, name: str) -> bool:
    """Whether a neighbour of `name` is called as `digest` calls it: what it does not name is not removed."""
    return re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{10}}", neighbour) is not None


@contextlib.contextmanager
def alone(lock: Path, command: str) -> Iterator[None]:
    """No other process is in here with the same lock; ends this one if another is."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another {command} is at work; wait until it has ended ({lock})")
        yield
