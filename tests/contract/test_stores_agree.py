"""Memory and Redis answer any sequence of commands alike, fences and places in the queue included.

Turns, edits and forks, compactions that end long after they began, and life spans that run out in between.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from history.conversation import Conversation, ConversationKey, Turn, turn_size
from history.limits import LimitRule
from history.memory_store import MemoryStore
from history.ports import Branch
from history.redis_keys import conversation_keys
from history.redis_store import RedisStore
from tests.contract.store_commands import TTL_MS, commands
from tests.contract.store_pair import Pair, everything
from tests.contract.store_side import Side
from tests.contract.store_stage import age

# One round trip for all that is checked after each command: they are most of what this test does.
_LIFE_SPANS = """
local exists, spans = {}, {}
for at, key in ipairs(KEYS) do
  exists[at] = redis.call('TYPE', key).ok == 'hash' and redis.call('HEXISTS', key, 'created_at') or 0
  spans[at] = redis.call('PEXPIRETIME', key)
end
return {exists, spans}
"""


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples, so that the connections last."""
    with asyncio.Runner() as opened:
        yield opened


@pytest.mark.parametrize(
    ("ttl_ms", "limits"),
    [
        (None, LimitRule()),
        (TTL_MS, LimitRule()),
        (TTL_MS, LimitRule(conversation_turns=8)),
        (None, LimitRule(conversation_bytes=1500)),
    ],
    ids=["for ever", "expiring", "few turns", "few bytes"],
)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(said=st.integers(0, 6), sequence=st.lists(commands, min_size=15, max_size=50))
def test_two_stores_agree_on_random_command_sequences(
    runner: asyncio.Runner,
    valkey_url: str,
    ttl_ms: int | None,
    limits: LimitRule,
    said: int,
    sequence: list[tuple[Any, ...]],
) -> None:
    """Whatever is asked in whatever order, both give the same answers and raise the same errors."""
    beginning = [("append", 0, [str(number)]) for number in range(said)]
    runner.run(play(valkey_url, ttl_ms, limits, [*beginning, *sequence]))


async def play(url: str, ttl_ms: int | None, limits: LimitRule, sequence: list[tuple[Any, ...]]) -> None:
    """Play one sequence on two fresh conversations of one tenant, and on the forks of them."""
    ahead, tenant = {"ms": 0}, uuid.uuid4().hex
    raw, redis = Redis.from_url(url), RedisStore(url, ttl_ms=ttl_ms, limits=limits)

    async def pass_in_memory(ms: int) -> None:
        ahead["ms"] += ms

    async def pass_in_redis(ms: int) -> None:
        for key in all_keys():
            await age(raw, key, ms)

    def all_keys() -> list[ConversationKey]:
        forks = range(1, pair.forks + 1)
        return [*pair.keys[:2], *(ConversationKey(tenant, f"fork {number}") for number in forks)]

    memory = MemoryStore(ttl_ms=ttl_ms, limits=limits, now_ms=lambda: time.monotonic() * 1_000 + ahead["ms"])
    pair = Pair(
        memory=Side(memory, pass_in_memory),
        redis=Side(redis, pass_in_redis),
        keys=[ConversationKey(tenant, "{0}"), ConversationKey(tenant, "1")],
    )
    try:
        for command in sequence:
            in_memory, in_redis = await pair.obey(*command)
            assert in_memory == in_redis, command
            for key in all_keys():
                in_memory, in_redis = await pair.both(lambda store, key=key: everything(store, key))
                assert in_memory == in_redis, command
                check_count(*in_redis[:4])
            await check_life_spans(raw, all_keys(), forever=ttl_ms is None)
    finally:
        await redis.close()
        await raw.aclose()


def check_count(
    conversation: Conversation | None, turns: Sequence[Turn], _: object, branches: Sequence[Branch]
) -> None:
    """What is counted is what is there; of archived turns, nobody here knows how many bytes they had."""
    if conversation is None:
        return
    kept = [*turns, *(turn for _, replaced in branches for turn in replaced)]
    assert conversation.stored.turns == conversation.base + len(kept)
    if not conversation.base and all(b"restored" not in turn.messages[0] for turn in kept):
        assert conversation.stored.bytes == sum(map(turn_size, kept))


async def check_life_spans(raw: "Redis[bytes]", keys: Sequence[ConversationKey], *, forever: bool) -> None:
    """All keys of a conversation end at one instant; what belongs to none ends by itself."""
    named = [conversation_keys(key) for key in keys]
    exists, spans = await raw.eval(_LIFE_SPANS, sum(map(len, named)), *itertools.chain(*named))
    spans_of = dict(zip(itertools.chain(*named), spans, strict=True))
    for at, names in enumerate(named):
        ends = {name: spans_of[name] for name in names if name != names.wait}
        there = {span for span in ends.values() if span != -2}
        assert len(there) <= 1, ends
        assert ends[names.meta] != -2 or not there, ends
        if there:
            assert (there == {-1}) is (forever and exists[at * len(names)] == 1), ends
        assert spans_of[names.wait] != -1
