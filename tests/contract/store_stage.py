"""The stage on which every conversation store plays the same tests."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from redis.asyncio import Redis

from history.conversation import Conversation, ConversationKey, Reply, Tailed, Turn
from history.limits import LimitRule
from history.ports import Begun, Change, Claim, ConversationStore
from history.redis_keys import conversation_keys


@dataclass
class Stage:
    """A store, and a way to let its clock run ahead for one conversation."""

    store: ConversationStore
    pass_ms: Callable[[ConversationKey, int], Awaitable[None]]
    limited: Callable[[LimitRule], ConversationStore]
    """Another store with these limits, over the same server if there is one."""
    tenant: str = field(default_factory=lambda: f"t{uuid.uuid4().hex}")

    def key(self, conversation_id: str = "c") -> ConversationKey:
        return ConversationKey(self.tenant, conversation_id)


async def age(raw: "Redis[bytes]", key: ConversationKey, ms: int) -> None:
    """Make lease, tickets and life span look `ms` older: the server's clock cannot be moved."""
    keys = conversation_keys(key)
    if await raw.hexists(keys.meta, "until"):
        await raw.hincrby(keys.meta, "until", -ms)
    for owner, ticket in (await raw.hgetall(keys.wait)).items():
        arrival, seen = ticket.split()
        await raw.hset(keys.wait, owner, b"%b %d" % (arrival, int(seen) - ms))
    for name in (keys.meta, keys.turns, keys.digests, keys.branches, keys.ratings, keys.vectors):
        if (dies_at := await raw.pexpiretime(name)) > 0:
            await raw.pexpireat(name, dies_at - ms)


def claim(owner: str, *, queue_limit: int = 8, **more: object) -> Claim:
    return Claim(owner=owner, lease_ms=10_000, queue_limit=queue_limit, **more)  # type: ignore[arg-type]  # per test


def turn(text: str, *, messages: int = 2) -> Turn:
    return Turn(
        messages=tuple(f'{{"role":"user","content":"{text} {n}"}}'.encode() for n in range(messages)),
        digests=b"".join(f"{text}-{n}".encode().ljust(16, b"\0")[:16] for n in range(messages)),
        tokens=7,
        at=12.5,
        idempotency_key=f"key {text}",
        body_hash=b"\xff\xfe",
        reply=Reply(id="chatcmpl-1", model="m", created=5, finish_reason="stop", prompt_tokens=3),
        tailed=Tailed(message=0, chars=3, cut=9),
    )


async def begun(stage: Stage, key: ConversationKey, owner: str = "writer", **more: object) -> Begun:
    answer = await stage.store.begin(key, claim(owner, **more))  # type: ignore[arg-type]  # per test
    assert isinstance(answer, Begun)
    return answer


async def say(stage: Stage, key: ConversationKey, *texts: str, cut: int | None = None) -> Conversation:
    """One committed turn per text."""
    for text in texts:
        held = await begun(stage, key, f"writer of {text}")
        change = Change(keep=held.conversation.turn_count, append=(turn(text),), at=1.0, cut=cut)
        conversation = await stage.store.commit(key, held.lease, change)
    return conversation
