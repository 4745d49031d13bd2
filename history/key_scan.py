"""Looking through all keys of a Redis for what should be gone: the proof of an erasure."""

from collections.abc import Callable, Collection

import msgspec

from history.conversation import ConversationKey
from history.redis_client import redis_client
from history.redis_keys import conversation_keys
from history.redis_place import RedisPlace

_AT_ONCE = 1_000


class Scanned(msgspec.Struct, frozen=True):
    """How many keys were looked at, and how many of them should not be there."""

    looked_at: int
    left: int


async def scan(
    place: RedisPlace,
    tags: Collection[bytes],
    *,
    timeout_s: float,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Scanned:
    """Look at every key of the place, whoever's it is, for these hash tags. Raises redis-py's exceptions.

    `on_progress` is told now and then how many have been looked at.
    """
    looked_at = left = 0
    async with redis_client(place, timeout_s=timeout_s) as client:
        async for name in client.scan_iter(count=_AT_ONCE):
            looked_at += 1
            left += tag_of(name) in tags
            if looked_at % _AT_ONCE == 0:
                on_progress(looked_at)
    return Scanned(looked_at, left)


def tag_of(name: bytes) -> bytes:
    """What stands between the braces of a key's name."""
    return name.partition(b"{")[2].partition(b"}")[0]


def tag_of_conversation(key: ConversationKey) -> bytes:
    """The hash tag of everything that is kept of a conversation."""
    return tag_of(conversation_keys(key).meta)
