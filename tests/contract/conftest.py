"""Each conversation store in turn, for the tests that both have to pass."""

import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from history.conversation import ConversationKey
from history.memory_store import MemoryStore
from history.redis_store import RedisStore
from tests.contract.store_stage import Stage, age


@pytest.fixture(params=["memory", "redis"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """Each store in turn, under a tenant of this test alone."""
    if request.param == "memory":
        ahead = 0

        async def pass_in_memory(_: ConversationKey, ms: int) -> None:
            nonlocal ahead
            ahead += ms

        yield Stage(MemoryStore(now_ms=lambda: time.monotonic() * 1_000 + ahead), pass_in_memory)
        return
    url = request.getfixturevalue("valkey_url")
    store, raw = RedisStore(url), Redis.from_url(url)

    async def pass_in_redis(key: ConversationKey, ms: int) -> None:
        await age(raw, key, ms)

    yield Stage(store, pass_in_redis)
    await store.close()
    await raw.aclose()
