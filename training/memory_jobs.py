"""The job store in a dictionary: for tests and for trying things in one process. It passes the contract."""

from collections.abc import Sequence

import msgspec

from training.errors import JobConflict, JobExists, JobNotFound, TooManyJobs
from training.job import MAX_EVENTS, MAX_LISTED, Job, JobEvent


class MemoryJobs:
    """A JobStore of this process alone, forgotten when it ends."""

    def __init__(self, *, max_jobs_per_tenant: int = 10_000) -> None:
        self._max_jobs_per_tenant = max_jobs_per_tenant
        self._jobs: dict[str, Job] = {}
        self._events: dict[str, list[JobEvent]] = {}

    async def create(self, job: Job) -> None:
        """See JobStore."""
        if job.id in self._jobs:
            raise JobExists(job.id)
        if len(self._newest_first(job.tenant)) >= self._max_jobs_per_tenant:
            raise TooManyJobs(job.tenant, self._max_jobs_per_tenant)
        self._jobs[job.id] = job
        self._events[job.id] = []

    async def get(self, job_id: str) -> Job:
        """See JobStore."""
        if job_id not in self._jobs:
            raise JobNotFound(job_id)
        return self._jobs[job_id]

    async def advance(self, job: Job) -> None:
        """See JobStore."""
        stored = await self.get(job.id)
        if stored.version != job.version - 1:
            raise JobConflict(job.id)
        self._jobs[job.id] = job

    async def list(self, tenant: str, *, after: str | None = None, limit: int = 20) -> tuple[Job, ...]:
        """See JobStore."""
        return _page(self._newest_first(tenant), after, limit)

    async def list_all(self, *, after: str | None = None, limit: int = 20) -> tuple[Job, ...]:
        """See JobStore."""
        return _page(self._newest_first(None)[:MAX_LISTED], after, limit)

    async def append_event(self, job_id: str, event: JobEvent) -> int:
        """See JobStore."""
        await self.get(job_id)
        events = self._events[job_id]
        seq = events[-1].seq + 1 if events else 1
        events.append(msgspec.structs.replace(event, seq=seq))
        del events[:-MAX_EVENTS]
        return seq

    async def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[JobEvent, ...]:
        """See JobStore."""
        await self.get(job_id)
        return tuple(event for event in self._events[job_id] if event.seq > after)[:limit]

    def _newest_first(self, tenant: str | None) -> Sequence[Job]:
        jobs = [job for job in self._jobs.values() if tenant in (None, job.tenant)]
        return sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)


def _page(jobs: Sequence[Job], after: str | None, limit: int) -> tuple[Job, ...]:
    start = 0
    if after is not None:
        ids = [job.id for job in jobs]
        if after not in ids:
            raise JobNotFound(after)
        start = ids.index(after) + 1
    return tuple(jobs[start : start + limit])
