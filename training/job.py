"""The job: one fine-tuning run as a fact, and the one table of how its status may change.

Two rules of this file. Every change of a job goes through `apply`, which knows no clock and no store: what
is legal is read off `TRANSITIONS` and nowhere else. And three counters, each for one question:

    version    how often was the record changed?  The store takes a record only one version after its own.
    fence      which claim is the newest?         Whoever works under an older one must stop.
    attempts   how often was it claimed since it was last queued or got ahead?  A job that kills its worker
               comes back from the queue for ever, because the queue does not count; this does.

The record is the truth. The queue carries the id alone, and may carry it twice.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

import msgspec

from training.errors import IllegalTransition, InvalidJob

SCHEMA = 1
MAX_ATTEMPTS = 3
MAX_EVENTS = 1000
MAX_MESSAGE_CHARS = 2000
MAX_LISTED = 100_000
"""As many jobs of all tenants together are listed."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[^\s{}]{1,256}")


class Status(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Change(StrEnum):
    """What can happen to a job.

    `claim` is a worker taking it, the first time or after another's death; `progress` a checkpoint from which
    it will be resumed.
    """

    CLAIM = "claim"
    START = "start"
    PROGRESS = "progress"
    PAUSE = "pause"
    RESUME = "resume"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: Mapping[tuple[Status, Change], Status] = MappingProxyType(
    {
        (Status.QUEUED, Change.CLAIM): Status.VALIDATING,
        (Status.QUEUED, Change.PAUSE): Status.PAUSED,
        (Status.QUEUED, Change.FAIL): Status.FAILED,
        (Status.QUEUED, Change.CANCEL): Status.CANCELLED,
        (Status.VALIDATING, Change.CLAIM): Status.VALIDATING,
        (Status.VALIDATING, Change.START): Status.RUNNING,
        (Status.VALIDATING, Change.PAUSE): Status.PAUSED,
        (Status.VALIDATING, Change.FAIL): Status.FAILED,
        (Status.VALIDATING, Change.CANCEL): Status.CANCELLED,
        (Status.RUNNING, Change.CLAIM): Status.RUNNING,
        (Status.RUNNING, Change.PROGRESS): Status.RUNNING,
        (Status.RUNNING, Change.PAUSE): Status.PAUSED,
        (Status.RUNNING, Change.SUCCEED): Status.SUCCEEDED,
        (Status.RUNNING, Change.FAIL): Status.FAILED,
        (Status.RUNNING, Change.CANCEL): Status.CANCELLED,
        (Status.PAUSED, Change.RESUME): Status.QUEUED,
        (Status.PAUSED, Change.CANCEL): Status.CANCELLED,
    }
)


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed: `code` for programs, `message` for people, saying what to do."""

    code: str
    message: str


Method = Literal["supervised", "dpo"]


class Hyperparameters(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a caller may set of a run; None leaves it to the recipe."""

    n_epochs: float | None = None
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    """By the recipe's own rate."""
    beta: float | None = None
    """Of DPO."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One fine-tuning run. Times are in seconds since 1970."""

    id: str
    tenant: str
    model: str
    recipe: str
    created_at: float
    updated_at: float
    training_file: str = ""
    """The id of an uploaded file or of a dataset (`training.folder`, ADR 0019)."""
    validation_file: str = ""
    method: Method = "supervised"
    hyperparameters: Hyperparameters = Hyperparameters()
    suffix: str = ""
    """Of the alias that its model serves under; empty: the model's own name."""
    seed: int | None = None
    metadata: Mapping[str, str] = {}
    started_at: float | None = None
    finished_at: float | None = None
    examples: int = 0
    """That its prepared dataset has."""
    trained_tokens: int = 0
    fine_tuned_model: str = ""
    """`<alias>--<version>`, the folder under `models/`, once it has succeeded."""
    status: Status = Status.QUEUED
    error: JobError | None = None
    attempts: int = 0
    fence: int = 0
    version: int = 1
    schema: int = SCHEMA

    @property
    def terminal(self) -> bool:
        """Nothing will ever change this job again."""
        return self.status in TERMINAL


class Level(StrEnum):
    """How much an event wants to be read."""

    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a job's story. `seq` counts from 1 and is given by the store."""

    at: float
    message: str
    level: Level = Level.INFO
    data: Mapping[str, float] | None = None
    """Of a line of metrics: step, total_steps, train_loss, valid_loss, learning_rate, ..."""
    seq: int = 0


def new_job(*, job_id: str, tenant: str, model: str, recipe: str, now: float) -> Job:
    """A queued job that nobody has stored yet. Raises InvalidJob, naming the field."""
    if not _ID.fullmatch(job_id):
        raise InvalidJob("id", "must be 1 to 64 letters, digits, hyphens or underscores")
    for field, value in (("tenant", tenant), ("model", model), ("recipe", recipe)):
        if not _NAME.fullmatch(value):
            raise InvalidJob(field, "must be 1 to 256 characters without spaces and braces")
    return Job(id=job_id, tenant=tenant, model=model, recipe=recipe, created_at=now, updated_at=now)


def apply(job: Job, change: Change, *, now: float, error: JobError | None = None) -> Job:
    """The job after the change, one version on. Raises IllegalTransition if the table has no such line.

    `error` belongs to `fail` and to nothing else. `now` may lie before the last change, where two machines'
    clocks differ; `updated_at` then stays.
    """
    status = TRANSITIONS.get((job.status, change))
    if status is None:
        raise IllegalTransition(job.id, job.status, change)
    if (change is Change.FAIL) != (error is not None):
        raise ValueError(f"an error is given if and only if a job fails, not with {change} and {error}")
    claimed = int(change is Change.CLAIM)
    at = max(now, job.updated_at)
    return msgspec.structs.replace(
        job,
        status=status,
        error=error and JobError(error.code, error.message[:MAX_MESSAGE_CHARS]),
        attempts=0 if change in (Change.RESUME, Change.PROGRESS) else job.attempts + claimed,
        fence=job.fence + claimed,
        version=job.version + 1,
        updated_at=at,
        started_at=at if change is Change.START and job.started_at is None else job.started_at,
        finished_at=at if status in TERMINAL else job.finished_at,
    )
