"""`friendo conversations erase`: the erasure, and the proof that nothing is left."""

import sys

import msgspec
from redis.exceptions import RedisError

from gateway.cli.conversation_store import Opened, opened
from gateway.errors import BadOption
from history.conversation import ConversationKey
from history.errors import ConversationNotFound
from history.key_scan import Scanned, scan, tag_of_conversation
from history.redis_client import reason, redis_client


class Proof(msgspec.Struct, frozen=True):
    """How many conversations were erased, and what a look at every key has shown."""

    erased: int
    looked_at: int
    left: int


async def erased(redis: str | None, tenant: str, conversation_id: str | None, user: str | None) -> Proof:
    """Erase one conversation or all of a user. Raises `ConversationNotFound`, `StoreUnavailable`."""
    async with opened(redis) as place:
        if user is not None:
            ids = await place.store.conversations_of(tenant, user)
            count = await place.store.erase_user(tenant, user)
        else:
            key = ConversationKey(tenant, conversation_id or "")
            if await place.store.load(key) is None:
                raise ConversationNotFound(key.id)
            ids, count = (key.id,), 1
            await place.store.erase(key)
        tags = {tag_of_conversation(ConversationKey(tenant, one)) for one in ids}
        try:
            scanned = await _scanned(place, tags)
        except RedisError as error:
            done = f"{count} conversation(s) were erased"
            raise BadOption(f"{done}, but the keys could not be looked at: {reason(error)}") from error
        listed = len(await place.store.conversations_of(tenant, user)) if user is not None else 0
    return Proof(count, scanned.looked_at, scanned.left + listed)


async def _scanned(opened_store: Opened, tags: set[bytes]) -> Scanned:
    from rich.console import Console
    from rich.progress import Progress

    store = opened_store.settings.store
    total: int | None = None
    if store.place.kind != "cluster":  # there each server knows its own number only
        async with redis_client(store.place, timeout_s=store.timeout_s) as client:
            total = await client.dbsize()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("Looking at every key", total=total)
        return await scan(
            store.place,
            tags,
            timeout_s=store.timeout_s,
            on_progress=lambda done: progress.update(task, completed=done),
        )
