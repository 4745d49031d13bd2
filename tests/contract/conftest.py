"""Each conversation store in turn, for the tests that all of them have to pass.

Redis is three of them: one server, a cluster, and a master that sentinels name.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from history.conversation import ConversationKey
from history.limits import LimitRule
from history.memory_store import MemoryStore
from history.redis_client import redis_client
from history.redis_place import Durability, parse_place
from history.redis_store import RedisStore
from tests.contract.store_stage import Stage, age
from tests.redis_topologies import running_cluster, running_watched


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of three masters for the whole run; make your ids unique."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.url


@pytest.fixture(scope="session")
def sentinel_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A master with a replica and three sentinels for the whole run; make your ids unique."""
    with running_watched(tmp_path_factory.mktemp("sentinel")) as watched:
        yield watched.url


@pytest.fixture(params=["memory", "valkey", "cluster", "sentinel"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """Each store in turn, under a tenant of this test alone."""
    if request.param == "memory":
        ahead = 0

        async def pass_in_memory(_: ConversationKey, ms: int) -> None:
            nonlocal ahead
            ahead += ms

        def in_memory(limits: LimitRule) -> MemoryStore:
            return MemoryStore(limits=limits, now_ms=lambda: time.monotonic() * 1_000 + ahead)

        yield Stage(in_memory(LimitRule()), pass_in_memory, in_memory)
        return
    place = parse_place(request.getfixturevalue(f"{request.param}_url"))
    async with redis_client(place, timeout_s=5) as raw, contextlib.AsyncExitStack() as stack:
        # The one with a replica waits for it, as a careful operator would have it.
        durability = Durability(wait_replicas=int(place.kind == "sentinel"))

        def in_redis(limits: LimitRule) -> RedisStore:
            store = RedisStore(place, durability=durability, limits=limits)
            stack.push_async_callback(store.close)
            return store

        async def pass_in_redis(key: ConversationKey, ms: int) -> None:
            await age(raw, key, ms)

        yield Stage(in_redis(LimitRule()), pass_in_redis, in_redis)
