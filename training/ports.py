"""The doors of training: what its use cases ask of the world outside.

Both are asynchronous, because the gateway, which creates and shows jobs, has one thread for everybody.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from training.job import Job, JobError, JobEvent

Purpose = Literal["fine-tune", "fine-tune-results", "evals"]


class StoredFile(msgspec.Struct, frozen=True):
    """An uploaded file, or one that a job has written."""

    id: str
    tenant: str
    filename: str
    purpose: Purpose
    bytes: int
    sha256: str
    created_at: float
    """Unix seconds."""


class Prepared(msgspec.Struct, frozen=True):
    """A dataset that LLaMA-Factory can read as it is: what is under `folder` is ours, checked and whole."""

    folder: Path
    """Its `dataset_dir`, with dataset_info.json."""
    train: str
    """The name in dataset_info.json; with preferences, of pairs."""
    evaluation: str
    """The same of what is held out; empty where there is nothing."""
    examples: int
    """In `train`: the trainer has to say the same number."""
    longest_prompt: int
    """Tokens, the 99th percentile of the prompts, estimated or counted."""
    mask_history: bool = False
    """Whether only the last answer of each example counts; the trainer's setting of the same name."""
    notes: tuple[str, ...] = ()
    """What was mended or left out, by record and reason, for people; bounded."""


class JobStore(Protocol):
    """Where job records live. Every method raises StoreUnavailable when the store does not answer."""

    async def create(self, job: Job) -> None:
        """Store a new job at version 1. Raises JobExists, and TooManyJobs for a tenant at its limit."""

    async def get(self, job_id: str) -> Job:
        """The record as it stands. Raises JobNotFound."""

    async def advance(self, job: Job) -> None:
        """Replace the record by its next version.

        Raises JobConflict unless the stored one is exactly one version older, and then leaves it untouched.
        Raises JobNotFound.
        """

    async def list(self, tenant: str, *, after: str | None = None, limit: int = 20) -> tuple[Job, ...]:
        """A tenant's jobs, newest first, at most `limit` of them, beginning behind the job `after`.

        Raises JobNotFound if `after` is none of the tenant's.
        """

    async def list_all(self, *, after: str | None = None, limit: int = 20) -> tuple[Job, ...]:
        """Everybody's jobs, newest first, of the newest MAX_LISTED; for who runs the gateway.

        Raises JobNotFound if `after` is none of them.
        """

    async def append_event(self, job_id: str, event: JobEvent) -> int:
        """Add a line to the job's story and return its number. The oldest go beyond MAX_EVENTS.

        Raises JobNotFound.
        """

    async def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[JobEvent, ...]:
        """The story in order, at most `limit` lines, beginning behind line `after`. Raises JobNotFound."""


class JobQueue(Protocol):
    """How a job's id reaches a worker: at least once, so that a worker must bear to see it twice."""

    async def push(self, job_id: str) -> None:
        """Hand the id to some worker. Raises QueueUnavailable."""


class FileStore(Protocol):
    """Where uploaded files lie. Ids never cross tenants. Raises StoreUnavailable where the disk refuses."""

    async def create(
        self,
        tenant: str,
        filename: str,
        purpose: Purpose | Callable[[], Purpose],
        content: AsyncIterator[bytes],
        *,
        now: float,
    ) -> StoredFile:
        """Keep it whole or not at all: what `content` or `purpose` raises leaves nothing behind.

        A purpose that is told behind the content, as forms do, comes as a function and is asked for then.
        Raises FileTooLarge, TooManyFiles.
        """

    async def get(self, tenant: str, file_id: str) -> StoredFile:
        """What it is. Raises FileMissing."""

    async def list(self, tenant: str) -> tuple[StoredFile, ...]:
        """All of a tenant's, newest first."""

    async def delete(self, tenant: str, file_id: str) -> None:
        """Raises FileMissing."""

    async def path(self, tenant: str, file_id: str) -> Path:
        """Where its content lies on this machine. Raises FileMissing."""


class Datasets(Protocol):
    """What turns a training file's id into what LLaMA-Factory can read."""

    async def prepare(self, job: Job, folder: Path) -> Prepared:
        """Write a job's dataset into `folder`, which may have an earlier attempt in it.

        Raises BadDataset, which names records and reasons, and FileMissing.
        """


class Trainer(Protocol):
    """The LLaMA-Factory environment of this machine."""

    def cli(self) -> Path | None:
        """The program that trains, or None where it is not installed."""

    def missing(self) -> str:
        """What to tell a person when it is not: where it was looked for and the command that installs it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is started for a job, in its folder."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, bytes]
    """Written into the job's folder first, by their path in it."""
    base: Path
    """The base model's folder."""
    is_full: bool
    """It makes a model, not an adapter."""
    notes: tuple[str, ...]
    """For people: what was chosen and why."""


class Recipes(Protocol):
    """What turns a job into a command. Its output goes to `output/` in the job's folder."""

    async def plan(self, job: Job, prepared: Prepared, *, folder: Path, resume_from: Path | None) -> Plan:
        """The plan of a job whose folder is `folder`; resumed from a checkpoint where one is given.

        Raises InvalidJob.
        """


@dataclass(frozen=True, slots=True)
class Lease:
    """GPUs that one job has to itself for a while. `fence` is larger than that of every earlier lease."""

    names: tuple[str, ...]
    owner: str
    fence: int


class Gpus(Protocol):
    """Who has which GPU. Every method raises StoreUnavailable when the store does not answer."""

    async def acquire(self, names: tuple[str, ...], owner: str) -> Lease | None:
        """All of them or none: None if another owner has one. An owner's own earlier lease is outdated."""

    async def renew(self, lease: Lease) -> bool:
        """Keep it for as long again. False if it has run out or is outdated: it holds nothing any more."""

    async def release(self, lease: Lease) -> None:
        """Give up what it still holds; nothing happens to what it does not."""


@dataclass(frozen=True, slots=True)
class Run:
    """The newest process tree of a job's folder.

    `none`: there never was one; `alive`: its keeper lives on this machine; `ended`: with `code`;
    `lost`: its keeper is gone and has not said how it ended.
    """

    state: Literal["none", "alive", "ended", "lost"]
    pid: int = 0
    """Of the keeper."""
    start: int = 0
    """When it started, in ticks since boot: a process id alone is used again."""
    code: int = 0
    is_stopped: bool = False
    """It was told to end: what its exit code says means nothing."""


Started = Literal["started", "busy", "outdated"]


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of a run in one look. Lists hold what is new since the last one."""

    run: Run
    metrics: tuple[Mapping[str, float], ...] = ()
    """Of step, total_steps, train_loss, valid_loss, learning_rate, epoch, trained_tokens: what was said."""
    checkpoints: tuple[int, ...] = ()
    """Steps of which a whole checkpoint is there."""
    examples: int | None = None
    """How many the trainer says it has, once it has said so."""
    log_bytes: int = 0
    """Ever written to its logs, as far as is known; only changes mean something."""
    cpu_ticks: int = 0
    """That its tree has used; falls when a process ends."""


class Follower(Protocol):
    """Reads one run's files as they grow."""

    async def look(self) -> Look:
        """What is new."""


class Runs(Protocol):
    """The trainers of this machine, each a process tree kept by its keeper."""

    async def find(self, folder: Path) -> Run:
        """The newest run of a job's folder."""

    async def clear(self, folder: Path) -> Path | None:
        """Make the folder of a run that is over ready for another, and return the checkpoint to resume from.

        What a lost keeper has left running is ended; checkpoints that are not whole are removed.
        """

    async def start(self, folder: Path, plan: Plan, *, fence: int) -> Started:
        """Start it.

        `busy`: the folder or a GPU has a run. `outdated`: the folder has seen a claim newer than `fence`.
        """

    async def stop(self, folder: Path, run: Run, *, patient: bool = False) -> Run:
        """End its whole tree and return how it ended. `patient`: with time for a last checkpoint."""

    def follow(self, folder: Path) -> Follower:
        """Read it from its beginning."""

    async def cause(self, folder: Path, code: int) -> JobError:
        """Why it ended with this code, from its log, without a word of the dialogues in it."""

    async def is_complete(self, folder: Path) -> bool:
        """It made its last step and left weights."""


class Shelf(Protocol):
    """Where finished models stand."""

    async def note(self, job: Job, folder: Path, plan: Plan, prepared: Prepared) -> None:
        """Keep with the job what its model's lineage will say: before it is trained."""

    async def publish(self, job: Job, folder: Path) -> str:
        """Move the output to `models/<alias>--<version>/` with its lineage; return that name.

        A second call for the same job returns the same name.
        """

    async def withdraw(self, folder: Path, name: str) -> None:
        """Take it back into the job's folder: it turned out to be no success."""


class Evaluator(Protocol):
    """What looks at a trained model before anybody else can."""

    async def after_training(self, job: Job, folder: Path) -> None:
        """`folder` is the job's, with `output/`. Raises TrainingError where the model must not be kept."""
