"""What a worker works with: the doors it was given, and its patience."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from training.ports import Datasets, Evaluator, Gpus, JobStore, Recipes, Runs, Shelf, Trainer


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, and how often."""

    look_every_s: float = 1.0
    renew_every_s: float = 15.0
    """A third of a GPU lease, at most."""
    stall_s: float = 1800.0
    """A run without a log line and without processor time for so long has failed."""
    restarts: int = 2
    """Of a run that was ended from outside, as long as it makes no further checkpoint."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """One worker's. `gpus_here` are the names, unique among machines, of what one training takes."""

    store: JobStore
    trainer: Trainer
    datasets: Datasets
    recipes: Recipes
    gpus: Gpus
    runs: Runs
    shelf: Shelf
    folder: Path | None
    gpus_here: tuple[str, ...]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    evaluator: Evaluator | None = None
    patience: Patience = Patience()

    def folder_of(self, job_id: str) -> Path | None:
        """A job's own folder; None where training.folder is not set."""
        return None if self.folder is None else self.folder / "jobs" / job_id
