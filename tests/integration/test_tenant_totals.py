"""Tenants' totals on a real Valkey: several processes, lost answers, and what only a count anew can know."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from history.allowance import Allowance
from history.conversation import ConversationKey, Reply, Stored, Turn, turn_size
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.limits import LimitRule
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from history.ports import Begun, Change, Claim
from history.redis_keys import tenant_key
from history.redis_store import RedisStore
from history.rules import DialogueRules
from history.store_rules import USAGES_REMEMBERED
from history.sweeper import Sweeper
from tests.conftest import Valkey

TURN = Turn(messages=(b'{"role":"user","content":"hello"}',), digests=bytes(16))
SIZE = turn_size(TURN)


@pytest.fixture
async def stores(valkey: Valkey) -> AsyncIterator[tuple[RedisStore, RedisStore]]:
    """Two processes' stores over a server of this test alone; what the second one writes lives for 0.2 s."""
    both = (RedisStore(valkey.url), RedisStore(valkey.url, ttl_ms=200))
    yield both
    for store in both:
        await store.close()


async def say(store: RedisStore, key: ConversationKey, count: int) -> None:
    for _ in range(count):
        begun = await store.begin(key, Claim(owner=uuid.uuid4().hex, lease_ms=50, queue_limit=8))
        assert isinstance(begun, Begun)
        change = Change(keep=begun.conversation.turn_count, append=(TURN,), at=1.0)
        await store.commit(key, begun.lease, change)


def sweeper(store: RedisStore) -> Sweeper:
    return Sweeper(store, None, keep_s=0, counts=True, clock=time.time)


async def test_two_processes_add_to_one_total(stores: tuple[RedisStore, RedisStore]) -> None:
    """Each tells its own, and learns the others'."""
    first, second = stores
    await say(first, ConversationKey("t", "1"), 3)
    await say(second, ConversationKey("t", "2"), 2)
    alone = await first.usage(["t"])
    together = await second.usage(["t"])

    assert {"t": Stored(3, 3 * SIZE)} == alone
    assert {"t": Stored(5, 5 * SIZE)} == together == await first.usage(["t"])


async def test_limits_cost_a_turn_no_call(stores: tuple[RedisStore, RedisStore], valkey: Valkey) -> None:
    """It is two commands, by the server's own count; the total is told apart from it."""
    rule = LimitRule(conversation_turns=100, conversation_bytes=10**6, tenant_turns=100, tenant_bytes=10**6)
    store = RedisStore(valkey.url, limits=rule)
    allowance = Allowance(store, rule)
    rules = DialogueRules()
    keeper = LeaseKeeper(store, clock=time.time)
    dialogues = Dialogues(store, keeper, rules, time.time, allowance=allowance)

    async def turn(number: int) -> None:
        incoming = read_incoming(b'[{"role":"user","content":"hello"}]')
        ask = Ask(owner=f"w{number}", on_stop=lambda _: None, on_busy="queue")
        opened = await dialogues.open(ConversationKey("t", "c"), incoming, ask)
        assert isinstance(opened, OpenTurn)
        await opened.commit(Answer(message=answer({"content": "hi"}), reply=Reply()))

    async with Redis.from_url(valkey.url) as raw:
        await turn(0)
        await allowance.settle()
        before = await commands(raw)
        for number in range(1, 11):
            await turn(number)
        after = await commands(raw)
    told = await store.usage([])
    await store.close()

    assert 20 == after - before
    assert 11 == told["t"].turns


async def commands(raw: "Redis[bytes]") -> int:
    """Scripts that the server was sent so far."""
    stats = await raw.info("commandstats")
    return sum(
        stats[f"cmdstat_{name}"]["calls"] for name in ("eval", "evalsha") if f"cmdstat_{name}" in stats
    )


async def test_an_addition_whose_answer_was_lost_counts_once(stores: tuple[RedisStore, RedisStore]) -> None:
    """It is sent again under its name; there is an end to the names that are remembered."""
    store, _ = stores
    script, keys = store._scripts["usage"], (tenant_key("t"),)
    answers = [await store._link.run(script, keys, "name", USAGES_REMEMBERED, 2, 20) for _ in range(3)]
    for number in range(2 * USAGES_REMEMBERED):
        await store._link.run(script, keys, f"n{number}", USAGES_REMEMBERED, 1, 1)
    names = await store._link.command("HGET", tenant_key("t"), "done")

    assert [[b"2", b"20"]] * 3 == answers
    assert USAGES_REMEMBERED == len(names.strip(b",").split(b","))
    assert Stored(2 + 2 * USAGES_REMEMBERED, 20 + 2 * USAGES_REMEMBERED) == (await store.usage(["t"]))["t"]


async def test_a_store_that_is_away_loses_no_count(
    stores: tuple[RedisStore, RedisStore], valkey: Valkey
) -> None:
    """It is told when the store is back."""
    store, _ = stores
    await say(store, ConversationKey("t", "1"), 3)
    valkey.kill()
    with pytest.raises(Exception, match="did not answer"):
        await store.usage(["t"])
    valkey.start()

    assert {"t": Stored(3, 3 * SIZE)} == await store.usage(["t"])


async def test_a_count_anew_knows_what_nobody_told(
    stores: tuple[RedisStore, RedisStore], valkey: Valkey
) -> None:
    """What expired, and what a process had not told when it was killed; who has nothing left has nothing."""
    lasting, brief = stores
    await say(lasting, ConversationKey("t", "1"), 3)
    await say(brief, ConversationKey("t", "2"), 2)
    await say(brief, ConversationKey("gone", "3"), 4)
    await lasting.usage([])
    await brief.usage([])
    killed = RedisStore(valkey.url)
    await say(killed, ConversationKey("t", "4"), 1)
    await killed.close()
    await asyncio.sleep(0.3)
    before = await lasting.usage(["t", "gone"])
    swept = await sweeper(lasting).sweep()

    assert {"t": Stored(5, 5 * SIZE), "gone": Stored(4, 4 * SIZE)} == before
    assert {"t": Stored(4, 4 * SIZE), "gone": Stored()} == await lasting.usage(["t", "gone"])
    assert [("t", 2)] == [(tenant, found.conversations) for tenant, found in swept.tenants.items()]


async def test_conversations_of_an_earlier_program_count_from_their_next_turn_on(
    stores: tuple[RedisStore, RedisStore], valkey: Valkey
) -> None:
    """It kept no count: their turns are known, the bytes of those are not."""
    store, _ = stores
    key = ConversationKey("t", "1")
    await say(store, key, 3)
    async with Redis.from_url(valkey.url) as raw:
        await raw.hdel("friendo:{t:1}:meta", "stored")
    loaded = await store.load(key)
    await say(store, key, 1)
    after = await store.load(key)

    assert loaded is not None
    assert after is not None
    assert Stored() == loaded.stored
    assert Stored(4, SIZE) == after.stored


async def test_many_conversations_are_counted_in_several_looks(
    stores: tuple[RedisStore, RedisStore],
) -> None:
    """More than one answer of the server holds."""
    store, _ = stores
    await asyncio.gather(*(say(store, ConversationKey(f"t{n % 3}", str(n)), 1) for n in range(1_300)))
    swept = await sweeper(store).sweep()

    assert [("t0", 434), ("t1", 433), ("t2", 433)] == [
        (tenant, found.conversations) for tenant, found in swept.tenants.items()
    ]
    assert [434, 433, 433] == [found.stored.turns for found in swept.tenants.values()]
