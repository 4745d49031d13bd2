"""What only the store on a real Valkey can promise: its cost, its keys, its life spans, its schema."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from history.conversation import SCHEMA_VERSION, Conversation, ConversationKey, Turn
from history.errors import ConversationErased, StoreFault
from history.meaning import Vectors
from history.ports import Begun, Change, Claim
from history.redis_keys import conversation_keys, user_keys
from history.redis_store import RedisStore
from history.store_rules import GRAVE_MS
from tests.conftest import Valkey

TURN = Turn(messages=(b'{"role":"user","content":"%b"}' % (b"x" * 500),), digests=bytes(16))
WINDOW = 5


@pytest.fixture
async def raw(valkey_url: str) -> AsyncIterator["Redis[bytes]"]:
    """A client to look behind the store's back."""
    client = Redis.from_url(valkey_url)
    yield client
    await client.aclose()


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[RedisStore]:
    """The store under test."""
    opened = RedisStore(valkey_url)
    yield opened
    await opened.close()


def new_key(conversation_id: str = "c") -> ConversationKey:
    return ConversationKey(uuid.uuid4().hex, conversation_id)


def claim(owner: str = "w", *, lease_ms: int = 10_000) -> Claim:
    return Claim(owner=owner, lease_ms=lease_ms, queue_limit=8, digest_turns=3)


async def begin(
    store: RedisStore, key: ConversationKey, owner: str = "w", *, lease_ms: int = 10_000
) -> Begun:
    answer = await store.begin(key, claim(owner, lease_ms=lease_ms))
    assert isinstance(answer, Begun)
    return answer


async def say(store: RedisStore, key: ConversationKey, *turns: Turn, **more: Any) -> Conversation:
    """One begin and one commit."""
    held = await begin(store, key, uuid.uuid4().hex)
    count = held.conversation.turn_count
    cut = max(0, count + len(turns) - WINDOW)
    return await store.commit(key, held.lease, Change(keep=count, append=turns, at=1.0, cut=cut, **more))


async def returned_bytes(raw: "Redis[bytes]") -> int:
    """What the server sent so far, to everybody."""
    return int((await raw.info("stats"))["total_net_output_bytes"])


async def test_turn_costs_two_round_trips_and_the_same_bytes_at_any_length(
    store: RedisStore, raw: "Redis[bytes]"
) -> None:
    """At 10, 100 and 2,000 turns a turn is two commands and no byte more than the window needs."""
    costs = {}
    for length in (10, 100, 2_000):
        key = new_key()
        await say(store, key, *[TURN] * length)
        await say(store, key, TURN)
        idle = -await returned_bytes(raw)
        idle += await returned_bytes(raw)
        trips, size = -store.round_trips, -await returned_bytes(raw)
        await say(store, key, TURN)
        trips, size = trips + store.round_trips, size + await returned_bytes(raw) - idle
        costs[length] = (trips, size)
    sizes = [size for _, size in costs.values()]

    assert {2} == {trips for trips, _ in costs.values()}
    # The counters themselves have more digits in a longer dialogue.
    assert max(sizes) - min(sizes) < 40
    assert max(sizes) < 2 * WINDOW * len(TURN.messages[0])


async def test_first_script_call_costs_one_more(valkey: Valkey) -> None:
    """A server that does not know a script gets its source, once."""
    store = RedisStore(valkey.url)
    await say(store, new_key(), TURN)
    first = store.round_trips
    await say(store, new_key(), TURN)
    await store.close()

    assert (4, 2) == (first, store.round_trips - first)


async def test_everything_runs_on_a_cluster(tmp_path: Path) -> None:
    """A server in cluster mode refuses any call whose keys are not all in one slot."""
    server = Valkey(tmp_path, options=("--cluster-enabled", "yes"))
    server.start()
    raw, store = Redis.from_url(server.url), RedisStore(server.url)
    await raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
    for _ in range(250):
        if b"cluster_state:ok" in await raw.execute_command("CLUSTER", "INFO"):
            break
        await asyncio.sleep(0.02)
    key = new_key("a}{b")
    await store.register(key.tenant, "u", key)
    await say(store, key, TURN, TURN, user="u")
    held = await begin(store, key)
    await store.begin(key, claim("waiting"))
    await store.renew(key, held.lease)
    await store.commit(key, held.lease, Change(keep=1, append=(TURN,), at=1.0, save_branch=True))
    branch, digests = await store.branch(key, 1), await store.digests(key)
    await store.leave(key, "waiting")
    loaded, turns = await store.load(key), await store.read(key, 0, 9)
    held = await begin(store, key, "last")
    await store.release(key, held.lease)
    listed = await store.conversations_of(key.tenant, "u")
    erased = await store.erase_user(key.tenant, "u")
    left = await raw.keys("*")
    await store.close()
    await raw.aclose()
    server.stop()

    assert (1, (TURN,)) == branch
    assert (TURN, TURN) == turns
    assert (TURN.digests,) * 2 == digests
    assert loaded is not None
    assert ("a}{b",) == listed
    assert 1 == erased
    assert [user_keys(key.tenant, "u").tombstone] == left


async def test_keys_are_laid_out_as_documented(store: RedisStore, raw: "Redis[bytes]") -> None:
    """One hash tag around tenant and id; nothing else is written for a conversation."""
    key = new_key("x%}y")
    await say(store, key, TURN)

    slot = f"friendo:{{{key.tenant}:x%25%7Dy}}:"
    expected = {f"{slot}{name}".encode() for name in ("meta", "turns", "digests")}
    assert expected == set(await raw.keys(f"*{key.tenant}*"))
    assert str(SCHEMA_VERSION).encode() == await raw.hget(f"{slot}meta", "v")


async def test_newer_schema_is_refused_and_left_alone(store: RedisStore, raw: "Redis[bytes]") -> None:
    """A conversation written by a newer program is neither read nor changed nor erased by guess."""
    key = new_key()
    await say(store, key, TURN)
    held = await begin(store, key)
    meta = conversation_keys(key).meta
    await raw.hset(meta, "v", SCHEMA_VERSION + 1)
    before = await raw.hgetall(meta)
    change = Change(keep=0, append=(), at=1.0)
    calls = (
        store.begin(key, claim()),
        store.renew(key, held.lease),
        store.commit(key, held.lease, change),
        store.release(key, held.lease),
        store.leave(key, "w"),
        store.load(key),
        store.read(key, 0, 1),
        store.digests(key),
        store.branch(key, 1),
        store.erase(key),
    )
    for call in calls:
        with pytest.raises(StoreFault, match="schema version"):
            await call

    assert before == await raw.hgetall(meta)


async def test_lost_turns_are_noticed(store: RedisStore, raw: "Redis[bytes]") -> None:
    """A server that evicts keys would make a companion forget in silence; it is an error instead."""
    key = new_key()
    await say(store, key, TURN)
    await raw.delete(conversation_keys(key).turns)

    with pytest.raises(StoreFault, match="noeviction"):
        await store.begin(key, claim())


async def test_foreign_bytes_are_a_fault_of_the_store(store: RedisStore, raw: "Redis[bytes]") -> None:
    """A turn that is no turn is reported, not raised as some decoder's error."""
    key = new_key()
    await say(store, key, TURN)
    await raw.lset(conversation_keys(key).turns, 0, b"\xc1")

    with pytest.raises(StoreFault, match="no record"):
        await store.read(key, 0, 1)


async def test_every_key_of_a_conversation_lives_as_long(valkey_url: str, raw: "Redis[bytes]") -> None:
    """A commit renews the life span of all of them, to the same instant; none is set where none is asked."""
    key = new_key()
    store, for_ever = RedisStore(valkey_url, ttl_ms=3_600_000), RedisStore(valkey_url)
    await say(store, key, TURN, TURN)
    held = await begin(store, key)
    await store.commit(key, held.lease, Change(keep=1, append=(), at=1.0, save_branch=True))
    await store.rate(key, "msg_1", b"up")
    rated = await raw.pttl(conversation_keys(key).ratings)
    known = await store.load(key)
    assert known is not None
    vectors = Vectors(form="f", past=known.past.number, created_at=known.created_at, start=0, records=(b"x",))
    assert await store.embed(key, vectors, most=9)
    embedded = await raw.pttl(conversation_keys(key).vectors)
    await say(store, key, TURN)
    names = ("meta", "turns", "digests", "branches", "ratings", "vectors")
    keys = [getattr(conversation_keys(key), name) for name in names]
    expiries = {await raw.pexpiretime(name) for name in keys}
    left = await raw.pttl(keys[0])
    await say(for_ever, key, TURN)
    unbounded = {await raw.pttl(name) for name in keys}
    await store.close()
    await for_ever.close()

    assert 3_500_000 < rated <= 3_600_000
    assert 3_500_000 < embedded <= 3_600_000
    assert 1 == len(expiries)
    assert 3_500_000 < left <= 3_600_000
    assert {-1} == unbounded


async def test_conversation_does_not_expire_under_its_writer(valkey_url: str, raw: "Redis[bytes]") -> None:
    """A turn that begins just before the end of the life span can still be committed."""
    key, store = new_key(), RedisStore(valkey_url, ttl_ms=150)
    await say(store, key, TURN)
    held = await begin(store, key, lease_ms=60_000)
    left = {await raw.pttl(name) for name in (conversation_keys(key).meta, conversation_keys(key).turns)}
    await store.renew(key, held.lease)
    await asyncio.sleep(0.2)
    after = await store.commit(key, held.lease, Change(keep=1, append=(TURN,), at=1.0))
    await asyncio.sleep(0.2)
    gone = await store.load(key)
    await store.close()

    assert min(left) > 60_000
    assert 2 == after.turn_count
    assert gone is None


async def test_traces_without_a_conversation_expire(store: RedisStore, raw: "Redis[bytes]") -> None:
    """What is left of a dropped first turn, a tombstone, a queue goes by itself."""
    key = new_key()
    held = await begin(store, key)
    await store.begin(key, claim("waiting"))
    waiting = await raw.pttl(conversation_keys(key).wait)
    await store.release(key, held.lease)
    await store.erase_user(key.tenant, "u")
    graves = (conversation_keys(key).meta, user_keys(key.tenant, "u").tombstone)

    assert 0 < waiting <= 3_000
    for grave in graves:
        assert 0 < await raw.pttl(grave) <= GRAVE_MS


async def test_erased_words_are_nowhere_in_the_server(store: RedisStore, raw: "Redis[bytes]") -> None:
    """After an erase there is no key of the conversation, not even while a turn is being written."""
    key = new_key()
    await store.register(key.tenant, "u", key)
    await say(store, key, TURN, user="u", persona=b"secret", character="c")
    await store.rate(key, "msg_1", b"up")
    held = await begin(store, key, "writing")
    await store.begin(key, claim("waiting"))
    await store.erase(key)
    with pytest.raises(ConversationErased):
        await store.commit(key, held.lease, Change(keep=1, append=(TURN,), at=1.0))
    await store.release(key, held.lease)
    await store.leave(key, "waiting")

    assert [] == await raw.keys(f"*{key.tenant}*")


async def test_late_commit_after_everything_expired_is_refused(
    store: RedisStore, raw: "Redis[bytes]"
) -> None:
    """Without any trace of the conversation a lease is worth nothing."""
    key = new_key()
    held = await begin(store, key)
    await raw.delete(conversation_keys(key).meta)

    with pytest.raises(ConversationErased):
        await store.commit(key, held.lease, Change(keep=0, append=(TURN,), at=1.0))


async def test_interrupted_erasure_is_finished_by_asking_again(
    store: RedisStore, raw: "Redis[bytes]"
) -> None:
    """The index goes last, so that what an erasure left over is found again."""
    key = new_key()
    await store.register(key.tenant, "u", key)
    await say(store, key, TURN, user="u")
    await raw.set(user_keys(key.tenant, "u").tombstone, "1")
    with pytest.raises(ConversationErased):
        await store.register(key.tenant, "u", key)

    assert 1 == await store.erase_user(key.tenant, "u")
    assert await store.load(key) is None
