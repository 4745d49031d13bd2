"""The doors of training: what its use cases ask of the world outside.

Both are asynchronous, because the gateway, which creates and shows jobs, has one thread for everybody.
"""

from pathlib import Path
from typing import Protocol

from training.job import Job, JobEvent


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


class Trainer(Protocol):
    """The LLaMA-Factory environment of this machine."""

    def cli(self) -> Path | None:
        """The program that trains, or None where it is not installed."""

    def missing(self) -> str:
        """What to tell a person when it is not: where it was looked for and the command that installs it."""
