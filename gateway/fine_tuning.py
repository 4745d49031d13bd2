"""Use case: training jobs as tenants see them, over the same records and queue that workers have.

A client that got no answer sends its request again, so everything here may be asked twice: a job that was
created under an idempotency key is found again, a change that was made is not made anew, and an id that may
not have reached the queue is handed over again, which workers bear.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.errors import BadRequest, NotSetUp
from training.dispatch import dispatch
from training.errors import FileMissing, JobConflict, JobExists, JobNotFound
from training.exported import find_dataset, is_dataset_id
from training.job import (
    MAX_EVENTS,
    Change,
    Hyperparameters,
    Job,
    JobEvent,
    Method,
    Status,
    apply,
    new_job,
)
from training.ports import FileStore, JobQueue, JobStore

_TRIES = 5
_SCAN = 200
_LEADS_TO = {
    Change.CANCEL: Status.CANCELLED,
    Change.PAUSE: Status.PAUSED,
    Change.RESUME: Status.QUEUED,
}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its caller wants it."""

    model: str
    training_file: str
    recipe: str
    validation_file: str = ""
    suffix: str = ""
    seed: int | None = None
    metadata: dict[str, str] = {}
    method: Method = "supervised"
    hyperparameters: Hyperparameters = Hyperparameters()


class TrainingJobs:
    """Over the doors of training. `datasets`: the folder of exported ones; `clock`: Unix seconds."""

    def __init__(
        self, store: JobStore, queue: JobQueue, files: FileStore, datasets: Path, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._queue = queue
        self._files = files
        self._datasets = datasets
        self._clock = clock

    async def create(self, tenant: str, wanted: Wanted, *, key: str = "") -> Job:
        """Record a job and queue it. With an idempotency key, the same key is the same job.

        Raises BadRequest for files that are not there, and for a key that came with another job.
        """
        now = self._clock()
        job_id = f"ftjob-{_digest(tenant, key) if key else secrets.token_hex(12)}"
        job = _job(job_id, tenant, wanted, now)
        if key:
            with suppress(JobNotFound):
                return await self._again(job)
        await self._check_files(tenant, wanted)
        try:
            await dispatch(job, store=self._store, queue=self._queue, now=now, comes_again=bool(key))
        except JobExists:
            return await self._again(job)
        return job

    async def get(self, tenant: str, job_id: str) -> Job:
        """One of a tenant's jobs. Raises JobNotFound, for another tenant's as for none."""
        job = await self._store.get(job_id)
        if job.tenant != tenant:
            raise JobNotFound(job_id)
        return job

    async def page(
        self, tenant: str, *, after: str | None, limit: int, keeps: Callable[[Job], bool]
    ) -> tuple[tuple[Job, ...], bool]:
        """A tenant's jobs that `keeps` says yes to, newest first, and whether there are more."""
        found: list[Job] = []
        while True:
            jobs = await self._store.list(tenant, after=after, limit=_SCAN)
            found += filter(keeps, jobs)
            if len(found) > limit or not jobs:
                return tuple(found[:limit]), len(found) > limit
            after = jobs[-1].id

    async def change(self, tenant: str, job_id: str, change: Change) -> Job:
        """The job after the change, perhaps made before. Raises IllegalTransition, JobConflict."""
        for _ in range(_TRIES):
            job = await self.get(tenant, job_id)
            if job.status is not _LEADS_TO[change]:
                changed = apply(job, change, now=self._clock())
                if changed.terminal:
                    changed = msgspec.structs.replace(changed, finished_at=changed.updated_at)
                try:
                    await self._store.advance(changed)
                except JobConflict:
                    continue
                job = changed
                await self._store.append_event(job.id, JobEvent(at=job.updated_at, message=_said(change)))
            if change is Change.RESUME:
                await self._queue.push(job.id)
            return job
        raise JobConflict(job_id)

    async def events(self, job: Job) -> tuple[JobEvent, ...]:
        """All that is kept of its story, in order."""
        return await self._store.events(job.id, limit=MAX_EVENTS)

    async def everybodys(self, *, after: str | None, limit: int) -> tuple[tuple[Job, ...], bool]:
        """All tenants' jobs, newest first, and whether there are more."""
        jobs = await self._store.list_all(after=after, limit=limit + 1)
        return jobs[:limit], len(jobs) > limit

    async def _again(self, job: Job) -> Job:
        """What was created under the same key. Nobody knows whether its id reached the queue."""
        stored = await self._store.get(job.id)
        if _asked_for(stored) != _asked_for(job):
            raise BadRequest(
                "this Idempotency-Key came with another job before; take a new one for a new job",
                code="idempotency_key_in_use",
            )
        if stored.status is Status.QUEUED:
            await self._queue.push(stored.id)
        return stored

    async def _check_files(self, tenant: str, wanted: Wanted) -> None:
        await self._check_file(tenant, wanted.training_file, "training_file")
        if is_dataset_id(wanted.validation_file):
            raise BadRequest(
                "a dataset holds users out by itself; validate by a file, or by none",
                param="validation_file",
            )
        if wanted.validation_file:
            await self._check_file(tenant, wanted.validation_file, "validation_file")

    async def _check_file(self, tenant: str, file_id: str, param: str) -> None:
        try:
            if is_dataset_id(file_id):
                await asyncio.to_thread(find_dataset, self._datasets, tenant, file_id)
                return
            stored = await self._files.get(tenant, file_id)
        except FileMissing as missing:
            raise BadRequest(
                f"{missing}; upload it with purpose fine-tune, or name a dataset (ds-…)",
                param=param,
                code="file_not_found",
            ) from missing
        if stored.purpose != "fine-tune":
            raise BadRequest(
                f"file {file_id} has purpose {stored.purpose}; upload it with purpose fine-tune",
                param=param,
                code="invalid_file_purpose",
            )


@dataclass(frozen=True, slots=True)
class Training:
    """What of training this gateway has. What it lacks is None, and `why` says what to set."""

    files: FileStore | None
    jobs: TrainingJobs | None
    why: str
    recipe: str
    """Of a job that names none."""
    max_file_bytes: int

    def need_files(self) -> FileStore:
        """Raises NotSetUp."""
        if self.files is None:
            raise NotSetUp(self.why)
        return self.files

    def need_jobs(self) -> TrainingJobs:
        """Raises NotSetUp."""
        if self.jobs is None:
            raise NotSetUp(self.why)
        return self.jobs


def _job(job_id: str, tenant: str, wanted: Wanted, now: float) -> Job:
    plain = new_job(job_id=job_id, tenant=tenant, model=wanted.model, recipe=wanted.recipe, now=now)
    # Without a seed, one that the same idempotency key gives again.
    seed = wanted.seed if wanted.seed is not None else int(_digest("seed", job_id)[:7], 16)
    return msgspec.structs.replace(
        plain,
        training_file=wanted.training_file,
        validation_file=wanted.validation_file,
        method=wanted.method,
        hyperparameters=wanted.hyperparameters,
        suffix=wanted.suffix,
        seed=seed,
        metadata=wanted.metadata,
    )


def _asked_for(job: Job) -> tuple[object, ...]:
    """What the caller said of it, and nothing that happened since."""
    return (
        *(job.tenant, job.model, job.recipe, job.training_file, job.validation_file),
        *(job.method, job.hyperparameters, job.suffix, job.seed, dict(job.metadata)),
    )


def _said(change: Change) -> str:
    return {
        Change.CANCEL: "cancelled by its owner",
        Change.PAUSE: "paused by its owner",
        Change.RESUME: "queued again by its owner",
    }[change]


def _digest(owner: str, text: str) -> str:
    return hashlib.sha256(f"{owner}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:24]
