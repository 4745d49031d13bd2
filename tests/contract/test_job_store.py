"""Every job store keeps the same promises: one suite, run over the dictionary and over a real Valkey."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec
import pytest
import redis.asyncio

from training.errors import (
    JobConflict,
    JobExists,
    JobNotFound,
    RecordUnreadable,
    StoreUnavailable,
    TooManyJobs,
)
from training.job import MAX_EVENTS, SCHEMA, Change, Job, JobError, JobEvent, Level, Status, apply, new_job
from training.memory_jobs import MemoryJobs
from training.ports import JobStore
from training.redis_jobs import RedisJobs

Make = Callable[..., JobStore]


class Server(Protocol):
    """The Valkey of one test, as tests/conftest.py starts it."""

    url: str


@pytest.fixture(params=["memory", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Builds a store of the kind under test; the Redis ones share one server and one client."""
    if request.param == "memory":
        yield MemoryJobs
        return
    client = redis.asyncio.Redis.from_url(request.getfixturevalue("valkey_url"))
    yield lambda **limits: RedisJobs(client, **limits)
    await client.aclose()


@pytest.fixture
def store(make: Make) -> JobStore:
    """A store with its default limits."""
    return make()


def a_job(tenant: str | None = None, now: float = 1000.0) -> Job:
    """A job that no other test has."""
    own = uuid.uuid4().hex
    return new_job(job_id=f"job-{own}", tenant=tenant or f"tenant-{own}", model="m", recipe="lora", now=now)


async def test_what_was_created_is_read_back_whole(store: JobStore) -> None:
    """Every field survives the way into the store and out of it."""
    job = a_job(now=1732420000.123456)

    await store.create(job)

    assert job == await store.get(job.id)


async def test_an_unknown_id_is_not_found_by_any_method(store: JobStore) -> None:
    """No method makes up a job or changes one that is not there."""
    job = a_job()
    event = JobEvent(at=1.0, message="x")
    calls = (
        lambda: store.get(job.id),
        lambda: store.advance(apply(job, Change.CLAIM, now=1.0)),
        lambda: store.append_event(job.id, event),
        lambda: store.events(job.id),
        lambda: store.list(job.tenant, after=job.id),
    )

    for call in calls:
        with pytest.raises(JobNotFound) as caught:
            await call()
        assert job.id == caught.value.job_id


async def test_an_id_is_created_once(store: JobStore) -> None:
    """A second job with the same id is refused and the first one stands, in its own tenant's list alone."""
    job, intruder = a_job(), a_job()
    intruder = msgspec.structs.replace(intruder, id=job.id)
    await store.create(job)

    with pytest.raises(JobExists):
        await store.create(intruder)

    assert job == await store.get(job.id)
    assert (job,) == await store.list(job.tenant)
    assert await store.list(intruder.tenant) == ()


async def test_the_next_version_replaces_the_record(store: JobStore) -> None:
    """A change computed from the newest record is stored, error and all."""
    job = a_job()
    await store.create(job)
    claimed = apply(job, Change.CLAIM, now=2000.0)
    failed = apply(claimed, Change.FAIL, now=3000.0, error=JobError("no_disk", "voll: 空き容量がありません"))

    await store.advance(claimed)
    await store.advance(failed)

    assert failed == await store.get(job.id)


@pytest.mark.parametrize("steps", [0, 2, 3])
async def test_any_other_version_is_a_conflict_and_changes_nothing(store: JobStore, steps: int) -> None:
    """The stored record may be neither newer nor more than one version older."""
    job = a_job()
    await store.create(job)

    with pytest.raises(JobConflict):
        await store.advance(msgspec.structs.replace(job, version=job.version + steps, status=Status.RUNNING))

    assert job == await store.get(job.id)


async def test_one_of_many_racing_claims_wins(store: JobStore) -> None:
    """Twenty workers compute a claim from the same record: one is stored, nineteen are told."""
    job = a_job()
    await store.create(job)
    claims = [apply(job, Change.CLAIM, now=float(2000 + n)) for n in range(20)]

    outcomes = await asyncio.gather(*(store.advance(claim) for claim in claims), return_exceptions=True)

    won = [claim for claim, outcome in zip(claims, outcomes, strict=True) if outcome is None]
    assert [JobConflict] * 19 == [type(outcome) for outcome in outcomes if outcome is not None]
    assert won == [await store.get(job.id)]


async def test_jobs_are_listed_newest_first_and_by_tenant(store: JobStore) -> None:
    """Jobs of the same second are in a fixed order too, and nobody sees another tenant's."""
    tenant = f"tenant-{uuid.uuid4().hex}"
    jobs = [a_job(tenant, now=1000.0 + n // 2) for n in range(6)]
    for job in (*jobs, a_job()):
        await store.create(job)

    listed = await store.list(tenant)

    assert tuple(sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)) == listed


async def test_pages_behind_a_job_make_up_the_whole_list(store: JobStore) -> None:
    """Reading page after page yields each job once, and the page behind the last one is empty."""
    tenant = f"tenant-{uuid.uuid4().hex}"
    for n in range(7):
        await store.create(a_job(tenant, now=1000.0 + n))
    whole = await store.list(tenant)

    pages, after = [], None
    while page := await store.list(tenant, after=after, limit=3):
        pages.append(page)
        after = page[-1].id

    assert [len(page) for page in pages] == [3, 3, 1]
    assert whole == tuple(job for page in pages for job in page)


async def test_a_page_behind_another_tenants_job_is_not_found(store: JobStore) -> None:
    """A cursor does not tell whether another tenant has such a job."""
    mine, yours = a_job(), a_job()
    await store.create(mine)
    await store.create(yours)

    with pytest.raises(JobNotFound):
        await store.list(mine.tenant, after=yours.id)


async def test_a_tenant_at_its_limit_gets_no_further_job(make: Make) -> None:
    """The list of a tenant is bounded, and the refused job is not half stored."""
    store = make(max_jobs_per_tenant=2)
    tenant = f"tenant-{uuid.uuid4().hex}"
    await store.create(a_job(tenant))
    await store.create(a_job(tenant))
    third = a_job(tenant)

    with pytest.raises(TooManyJobs) as caught:
        await store.create(third)

    assert caught.value.limit == 2
    with pytest.raises(JobNotFound):
        await store.get(third.id)


async def test_events_are_numbered_from_one_and_read_in_order(store: JobStore) -> None:
    """A job's story starts empty, keeps its order, and can be read on from any line."""
    job = a_job()
    await store.create(job)
    assert await store.events(job.id) == ()
    told = [JobEvent(at=float(n), message=f"line {n} ✓", level=Level.WARN) for n in range(5)]

    numbers = [await store.append_event(job.id, event) for event in told]

    expected = tuple(msgspec.structs.replace(event, seq=n) for n, event in enumerate(told, 1))
    assert numbers == [1, 2, 3, 4, 5]
    assert expected == await store.events(job.id)
    assert expected[2:4] == await store.events(job.id, after=2, limit=2)
    assert await store.events(job.id, after=5) == ()
    assert await store.events(job.id, after=99) == ()


async def test_only_the_newest_events_are_kept(store: JobStore) -> None:
    """A talkative job does not grow without end, and the lines that stay keep their numbers."""
    job = a_job()
    await store.create(job)

    for n in range(MAX_EVENTS + 3):
        await store.append_event(job.id, JobEvent(at=float(n), message="step"))

    events = await store.events(job.id, limit=2 * MAX_EVENTS)
    assert list(range(4, MAX_EVENTS + 4)) == [event.seq for event in events]
    assert events[:2] == await store.events(job.id, after=1, limit=2)


async def test_a_change_does_not_disturb_the_events(store: JobStore) -> None:
    """The record and the story are written apart and counted apart."""
    job = a_job()
    await store.create(job)
    await store.append_event(job.id, JobEvent(at=1.0, message="queued"))

    await store.advance(apply(job, Change.CLAIM, now=2.0))

    assert await store.append_event(job.id, JobEvent(at=2.0, message="taken")) == 2
    assert (await store.get(job.id)).version == 2


async def test_redis_keys_of_one_job_share_a_slot(valkey_url: str) -> None:
    """A job's keys carry its id as the hash tag, so that the scripts run on a cluster too."""
    client = redis.asyncio.Redis.from_url(valkey_url)
    store, job = RedisJobs(client), a_job()
    await store.create(job)
    await store.append_event(job.id, JobEvent(at=1.0, message="queued"))

    keys = sorted([key.decode() async for key in client.scan_iter(f"*{job.id}*")])
    record = msgspec.json.decode(await client.hget(f"friendo:job:{{{job.id}}}", "record"))
    await client.aclose()

    assert [f"friendo:job:{{{job.id}}}", f"friendo:job:{{{job.id}}}:events"] == keys
    assert record["schema"] == SCHEMA


async def test_a_record_of_a_newer_version_is_not_misread(valkey_url: str) -> None:
    """What a later version wrote is refused by name instead of being read as something it is not."""
    client = redis.asyncio.Redis.from_url(valkey_url)
    store, job = RedisJobs(client), a_job()
    await store.create(job)
    record = msgspec.json.encode({"schema": SCHEMA + 1, "status": "dreaming"})
    await client.hset(f"friendo:job:{{{job.id}}}", "record", record)

    with pytest.raises(RecordUnreadable) as caught:
        await store.get(job.id)
    await client.aclose()

    assert caught.value.schema == SCHEMA + 1


async def test_an_id_without_a_record_is_left_out_of_the_list(valkey_url: str) -> None:
    """What a process leaves that dies between the list and the record is not a job."""
    client = redis.asyncio.Redis.from_url(valkey_url)
    store, job = RedisJobs(client), a_job()
    await store.create(job)
    await client.zadd(f"friendo:jobs:{{{job.tenant}}}", {"job-half-made": 1.0})

    listed = await store.list(job.tenant)
    await client.aclose()

    assert (job,) == listed


async def test_a_silent_redis_is_named_as_such(unused_port: int) -> None:
    """Nobody outside the store sees the client library's exceptions."""
    client = redis.asyncio.Redis(port=unused_port, retry=None)
    store, job = RedisJobs(client), a_job()
    calls = (
        lambda: store.create(job),
        lambda: store.get(job.id),
        lambda: store.advance(job),
        lambda: store.list(job.tenant),
        lambda: store.append_event(job.id, JobEvent(at=1.0, message="x")),
        lambda: store.events(job.id),
    )

    for call in calls:
        with pytest.raises(StoreUnavailable):
            await call()
    await client.aclose()


async def test_everybodys_jobs_are_listed_together(store: JobStore) -> None:
    """Newest first and page by page; these are newer than any other test's."""
    jobs = [a_job(now=9e9 + n) for n in range(5)]
    for job in jobs:
        await store.create(job)

    first = await store.list_all(limit=3)
    rest = await store.list_all(after=first[-1].id, limit=2)

    assert jobs[::-1] == [*first, *rest]
    with pytest.raises(JobNotFound):
        await store.list_all(after="none")


async def test_a_job_that_is_refused_is_not_in_everybodys_list(make: Make) -> None:
    """Neither one whose id is taken, nor one over its tenant's limit."""
    store, tenant = make(max_jobs_per_tenant=1), f"tenant-{uuid.uuid4().hex}"
    job = a_job(tenant, now=9e9 + 100)
    await store.create(job)

    with pytest.raises(TooManyJobs):
        await store.create(a_job(tenant, now=9e9 + 101))
    with pytest.raises(JobExists):
        await store.create(msgspec.structs.replace(a_job(now=9e9 + 102), id=job.id))

    assert (job,) == await store.list_all(limit=1)


async def test_everybodys_list_is_bounded(valkey: Server) -> None:
    """The oldest leave it; they stay in their tenant's."""
    async with redis.asyncio.Redis.from_url(valkey.url) as client:
        store = RedisJobs(client, max_listed=3)
        jobs = [a_job("acme", now=1000.0 + n) for n in range(5)]
        for job in jobs:
            await store.create(job)

        assert await client.zcard("friendo:all-jobs") == 3
        assert tuple(jobs[:1:-1]) == await store.list_all()
        assert tuple(jobs[::-1]) == await store.list("acme")
