"""The doors of training: what its use cases ask of the world outside.

Both are asynchronous, because the gateway, which creates and shows jobs, has one thread for everybody.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from training.job import Job, JobEvent

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
