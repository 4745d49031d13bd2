"""Looking at every conversation of a Redis: slowly, some at a time, wherever in a cluster it lies."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from redis.asyncio import Redis, RedisCluster

from history.errors import StoreUnavailable
from history.ports import Counted
from history.redis_client import redis_client, translated
from history.redis_keys import conversation_of
from history.redis_place import RedisPlace
from history.redis_records import decode_stored

_BLIND = "the store could not be looked through"
_SCANNED_AT_ONCE = 500
_AT_ONCE = 100
_PAUSE_S = 0.005
"""Between two looks: a count is nothing that turns should wait for."""


async def census(place: RedisPlace, *, timeout_s: float) -> AsyncGenerator[Sequence[Counted], None]:
    """See `ConversationStore.census`. One may come twice while the server grows or shrinks its table."""
    names: list[bytes] = []
    with translated(StoreUnavailable, _BLIND):
        async with redis_client(place, timeout_s=timeout_s) as client:
            async for name in client.scan_iter(match="friendo:{*}:meta", count=_SCANNED_AT_ONCE):
                names.append(name)
                if len(names) >= _AT_ONCE:
                    yield await _counted(client, names)
                    names.clear()
                    await asyncio.sleep(_PAUSE_S)
            if names:
                yield await _counted(client, names)


async def names_like(place: RedisPlace, pattern: str, *, timeout_s: float) -> Sequence[bytes]:
    """The names of all keys like this. Few, please. Raises `StoreUnavailable`."""
    with translated(StoreUnavailable, _BLIND):
        async with redis_client(place, timeout_s=timeout_s) as client:
            return [name async for name in client.scan_iter(match=pattern, count=_SCANNED_AT_ONCE)]


async def _counted(client: Redis | RedisCluster, names: Sequence[bytes]) -> Sequence[Counted]:
    """Those of the conversations that are there, and no mere fence of a turn that was never written."""
    keys = [(name, key) for name in names if (key := conversation_of(name)) is not None]
    async with client.pipeline(transaction=False) as together:
        for name, _ in keys:
            together.hmget(name, "created_at", "stored")
        answers = await together.execute()
    return [
        Counted(key, decode_stored(stored))
        for (_, key), (created_at, stored) in zip(keys, answers, strict=True)
        if created_at is not None
    ]
