"""Who is told how far a long stretch of work is."""

from typing import Protocol


class Watcher(Protocol):
    """A progress bar, or nobody."""

    def begins(self, what: str, total: int) -> None:
        """A stretch of work; 0: nobody knows how much."""

    def reached(self, done: int, said: str = "") -> None:
        """So much of it is done."""


class Nobody:
    """Looks away."""

    def begins(self, what: str, total: int) -> None:
        """Nothing."""

    def reached(self, done: int, said: str = "") -> None:
        """Nothing."""
