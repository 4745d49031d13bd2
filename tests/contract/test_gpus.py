"""Both ways of keeping who has which GPU keep the same promises."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis.asyncio

from training.errors import StoreUnavailable
from training.memory_gpus import MemoryGpus
from training.ports import Gpus
from training.redis_gpus import RedisGpus

LEASE_S = 0.4


class Place:
    """Gpus under test, and how time goes by for them."""

    def __init__(self, gpus: Gpus, run_out: Callable[[], Awaitable[None]]) -> None:
        self.gpus = gpus
        self.run_out = run_out
        own = uuid.uuid4().hex
        self.names = (f"{own}/gpu0", f"{own}/gpu1")


@pytest.fixture(params=["memory", "redis"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """One of the two."""
    if request.param == "memory":
        now = [0.0]

        async def later() -> None:
            now[0] += LEASE_S

        yield Place(MemoryGpus(seconds=LEASE_S, clock=lambda: now[0]), later)
        return
    client = redis.asyncio.Redis.from_url(request.getfixturevalue("valkey_url"))

    async def wait() -> None:
        await asyncio.sleep(LEASE_S + 0.2)

    yield Place(RedisGpus(client, seconds=LEASE_S), wait)
    await client.aclose()


async def test_one_owner_at_a_time_has_them_all_or_none(place: Place) -> None:
    """One that is taken keeps the other from being taken too."""
    first = await place.gpus.acquire(place.names[:1], "job-1")

    assert first is not None
    assert await place.gpus.acquire(place.names, "job-2") is None
    assert await place.gpus.acquire(place.names[1:], "job-3") is not None


async def test_every_lease_has_a_larger_fence(place: Place) -> None:
    """Whoever took it later is known by it."""
    fences = []
    for owner in ("job-1", "job-2", "job-2", "job-1"):
        lease = await place.gpus.acquire(place.names, owner)
        assert lease is not None
        fences.append(lease.fence)
        if owner != "job-2" or len(fences) == 3:
            await place.gpus.release(lease)

    assert fences == sorted(set(fences))


async def test_its_own_owner_takes_it_over_and_outdates_the_earlier_lease(place: Place) -> None:
    """A worker that was frozen finds its lease outdated, and cannot give up the newer one."""
    frozen = await place.gpus.acquire(place.names, "job-1")
    newer = await place.gpus.acquire(place.names, "job-1")
    assert frozen is not None
    assert newer is not None

    assert not await place.gpus.renew(frozen)
    await place.gpus.release(frozen)
    assert await place.gpus.renew(newer)
    assert await place.gpus.acquire(place.names, "job-2") is None


async def test_what_is_not_renewed_runs_out(place: Place) -> None:
    """And is not kept by a renewal that comes too late."""
    lease = await place.gpus.acquire(place.names, "job-1")
    assert lease is not None
    await place.run_out()

    assert not await place.gpus.renew(lease)
    assert await place.gpus.acquire(place.names, "job-2") is not None


async def test_a_released_one_is_free(place: Place) -> None:
    """At once."""
    lease = await place.gpus.acquire(place.names, "job-1")
    assert lease is not None

    await place.gpus.release(lease)

    assert not await place.gpus.renew(lease)
    assert await place.gpus.acquire(place.names, "job-2") is not None


async def test_a_silent_redis_is_named_as_such(unused_port: int) -> None:
    """In the words of this package."""
    client = redis.asyncio.Redis(port=unused_port, retry=None)

    with pytest.raises(StoreUnavailable):
        await RedisGpus(client, seconds=1).acquire(("here/gpu0",), "job-1")
    await client.aclose()
