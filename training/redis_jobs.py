"""The job store in Redis: one slot per job, so that it runs on a cluster, and Lua for what reads and writes.

    friendo:job:{<id>}           hash    record (JSON with its schema), version, events (how many ever)
    friendo:job:{<id>}:events    list    the newest MAX_EVENTS
    friendo:jobs:{<tenant>}      zset    the tenant's job ids by creation time
    friendo:all-jobs             zset    everybody's newest MAX_LISTED, the same way

The lists lie in slots of their own, so they are written first: a process that dies before the record leaves
an id without a job, which `list` and `list_all` skip, never a job that nobody can find.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import redis.asyncio
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from training.errors import (
    JobConflict,
    JobExists,
    JobNotFound,
    RecordUnreadable,
    StoreUnavailable,
    TooManyJobs,
)
from training.job import MAX_EVENTS, MAX_LISTED, SCHEMA, Job, JobEvent

_EVERYBODYS = "friendo:all-jobs"


class RedisJobs:
    """A JobStore over a client that its owner opens and closes; answers must come as bytes."""

    def __init__(
        self,
        client: "redis.asyncio.Redis | redis.asyncio.RedisCluster",
        *,
        max_jobs_per_tenant: int = 10_000,
        max_listed: int = MAX_LISTED,
    ) -> None:
        self._client = client
        self._max_listed = max_listed
        self._max_jobs_per_tenant = max_jobs_per_tenant
        self._index = self._script("index")
        self._create = self._script("create")
        self._advance = self._script("advance")
        self._newest = self._script("newest")
        self._append_event = self._script("append_event")
        self._events = self._script("events")

    async def create(self, job: Job) -> None:
        """See JobStore."""
        index = _index_key(job.tenant)
        with _translated():
            entered = await self._index([index], [job.created_at, job.id, self._max_jobs_per_tenant])
            if entered == -1:
                raise TooManyJobs(job.tenant, self._max_jobs_per_tenant)
            listed = await self._client.zadd(_EVERYBODYS, {job.id: job.created_at}, nx=True)
            await self._client.zremrangebyrank(_EVERYBODYS, 0, -self._max_listed - 1)
            if await self._create([_job_key(job.id)], [job.version, msgspec.json.encode(job)]):
                return
            if entered:
                await self._client.zrem(index, job.id)
            if listed:
                await self._client.zrem(_EVERYBODYS, job.id)
        raise JobExists(job.id)

    async def get(self, job_id: str) -> Job:
        """See JobStore."""
        with _translated():
            record = await self._client.hget(_job_key(job_id), "record")
        if record is None:
            raise JobNotFound(job_id)
        return _decoded(job_id, record)

    async def advance(self, job: Job) -> None:
        """See JobStore."""
        with _translated():
            done = await self._advance([_job_key(job.id)], [job.version, msgspec.json.encode(job)])
        if done == -1:
            raise JobNotFound(job.id)
        if not done:
            raise JobConflict(job.id)

    async def list(self, tenant: str, *, after: str | None = None, limit: int = 20) -> tuple[Job, ...]:
        """See JobStore."""
        return await self._page(_index_key(tenant), after, limit)

    async def list_all(self, *, after: str | None = None, limit: int = 20) -> tuple[Job, ...]:
        """See JobStore."""
        return await self._page(_EVERYBODYS, after, limit)

    async def append_event(self, job_id: str, event: JobEvent) -> int:
        """See JobStore."""
        with _translated():
            seq: int = await self._append_event(_event_keys(job_id), [msgspec.json.encode(event), MAX_EVENTS])
        if seq == -1:
            raise JobNotFound(job_id)
        return seq

    async def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[JobEvent, ...]:
        """See JobStore."""
        with _translated():
            answer = await self._events(_event_keys(job_id), [after, limit])
        if answer is None:
            raise JobNotFound(job_id)
        first, lines = answer
        events = (msgspec.json.decode(line, type=JobEvent) for line in lines)
        return tuple(msgspec.structs.replace(event, seq=first + n) for n, event in enumerate(events))

    async def _page(self, index: str, after: str | None, limit: int) -> tuple[Job, ...]:
        with _translated():
            newest = await self._newest([index], [after or "", limit])
            if newest is None:
                raise JobNotFound(after or "")
            ids = [job_id.decode() for job_id in newest]
            records = await self._records(ids)
        found = zip(ids, records, strict=True)
        return tuple(_decoded(job_id, record) for job_id, record in found if record is not None)

    async def _records(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        if not ids:
            return ()
        pipeline = self._client.pipeline(transaction=False)
        for job_id in ids:
            pipeline.hget(_job_key(job_id), "record")
        records: Sequence[bytes | None] = await pipeline.execute()
        return records

    def _script(self, name: str) -> AsyncScript:
        return self._client.register_script(Path(__file__).with_name(f"redis_jobs.{name}.lua").read_text())


class _Head(msgspec.Struct):
    schema: int


def _decoded(job_id: str, record: bytes | str) -> Job:
    schema = msgspec.json.decode(record, type=_Head).schema
    if schema > SCHEMA:
        raise RecordUnreadable(job_id, schema, SCHEMA)
    return msgspec.json.decode(record, type=Job)


def _job_key(job_id: str) -> str:
    return f"friendo:job:{{{job_id}}}"


def _event_keys(job_id: str) -> list[str]:
    return [_job_key(job_id), f"{_job_key(job_id)}:events"]


def _index_key(tenant: str) -> str:
    return f"friendo:jobs:{{{tenant}}}"


@contextmanager
def _translated() -> Iterator[None]:
    """What redis-py raises, in the words of this package."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the job store did not answer: {error}") from error
