"""A cluster that changes under its users: slots that move, a node that dies, and what a turn costs on it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from gateway.keys.key import Grant, Key
from gateway.keys.redis_keys import RECORDS, RedisKeys
from history.conversation import Conversation, ConversationKey, Turn
from history.errors import StoreUnavailable
from history.ports import Begun, Change, Claim
from history.redis_client import redis_client
from history.redis_keys import conversation_keys
from history.redis_place import Durability, parse_place
from history.redis_store import RedisStore
from tests.conftest import Valkey
from tests.redis_topologies import Cluster, asking, running_cluster

TURN = Turn(messages=(b'{"role":"user","content":"hello"}',), digests=bytes(16))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters; a test that moves slots leaves them where they are then."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[RedisStore]:
    """A store that has found the whole cluster already, and whose scripts every node knows."""
    opened = RedisStore(cluster.url)
    for server in cluster.servers:
        await say(opened, key_on(cluster, server))
    yield opened
    await opened.close()


def slot_of(key: ConversationKey) -> int:
    return key_slot(conversation_keys(key).meta)


def key_on(cluster: Cluster, server: Valkey) -> ConversationKey:
    """A new conversation whose slot this server has."""
    while True:
        key = ConversationKey(uuid.uuid4().hex, "c")
        if cluster.owner(slot_of(key)) is server:
            return key


def claim() -> Claim:
    return Claim(owner=uuid.uuid4().hex, lease_ms=10_000, queue_limit=8)


async def say(store: RedisStore, key: ConversationKey) -> Conversation:
    """One begin and one commit."""
    held = await store.begin(key, claim())
    assert isinstance(held, Begun)
    count = held.conversation.turn_count
    return await store.commit(key, held.lease, Change(keep=count, append=(TURN,), at=1.0))


def calls(cluster: Cluster) -> dict[str, int]:
    """How often the nodes have carried out a script so far, and how often they sent somebody elsewhere."""
    counted = {"scripts": 0, "moved": 0}
    for server in cluster.servers:
        with asking(server) as client:
            commands, errors = client.info("commandstats"), client.info("errorstats")
        for name in ("evalsha", "eval"):
            stats = commands.get(f"cmdstat_{name}", {})
            counted["scripts"] += stats.get("calls", 0) - stats.get("rejected_calls", 0)
        counted["moved"] += errors.get("errorstat_MOVED", {}).get("count", 0)
    return counted


async def test_turn_is_two_calls_to_the_right_node(cluster: Cluster, store: RedisStore) -> None:
    """Nobody is asked where a slot is, and nobody has to say that it is elsewhere."""
    keys = [key_on(cluster, server) for server in cluster.servers]
    before, trips = calls(cluster), store.round_trips
    for key in keys:
        await say(store, key)
    after = calls(cluster)

    assert 2 * len(keys) == store.round_trips - trips
    assert {"scripts": 2 * len(keys), "moved": 0} == {name: after[name] - before[name] for name in after}


async def test_conversation_of_a_moved_slot_is_followed_at_once(cluster: Cluster, store: RedisStore) -> None:
    """The first call after the move is sent on by the old node, the next ones go to the new one."""
    source, target, _ = cluster.servers
    key = key_on(cluster, source)
    await say(store, key)
    cluster.open_slot(slot_of(key), source, target)
    moved = cluster.move_keys(slot_of(key), source, target)
    cluster.close_slot(slot_of(key), source, target)
    trips, before = store.round_trips, calls(cluster)
    second = await say(store, key)
    trips_then, then = store.round_trips, calls(cluster)
    third = await say(store, key)

    assert 3 == moved
    assert (2, 3) == (second.turn_count, third.turn_count)
    assert (3, 2) == (trips_then - trips, store.round_trips - trips_then)
    assert (1, 1) == (then["moved"] - before["moved"], calls(cluster)["moved"] - before["moved"])


async def test_turn_waits_for_a_slot_that_is_on_its_way(cluster: Cluster, store: RedisStore) -> None:
    """Halfway, a conversation can be looked at where it is; a turn goes on when the slot has arrived."""
    source, target, _ = cluster.servers
    key = key_on(cluster, source)
    await say(store, key)
    cluster.open_slot(slot_of(key), source, target)
    cluster.move_keys(slot_of(key), source, target)
    loaded = await store.load(key)
    turn = asyncio.create_task(say(store, key))
    await asyncio.sleep(0.3)
    waits = not turn.done()
    cluster.close_slot(slot_of(key), source, target)
    after = await turn

    assert loaded is not None
    assert (1, True, 2) == (loaded.turn_count, waits, after.turn_count)


async def test_api_keys_follow_their_slot(cluster: Cluster) -> None:
    """The key store's scripts have one slot, wherever it goes."""
    place, slot = parse_place(cluster.url), key_slot(RECORDS.encode())
    key = Key(id="a", digest=bytes(32), grant=Grant(tenant="t", name="n"), created_at=1.0)
    async with redis_client(place, timeout_s=5) as client:
        keys = RedisKeys(client)
        await keys.create(key)
        source = cluster.owner(slot)
        target = next(server for server in cluster.servers if server is not source)
        cluster.open_slot(slot, source, target)
        cluster.move_keys(slot, source, target)
        cluster.close_slot(slot, source, target)
        revoked = await keys.revoke("a", now=2.0)
        table = await keys.table()
        await keys.forget("a")

    assert (revoked,) == table.keys


async def test_replica_takes_over_for_a_dead_node_and_the_other_shards_never_stop(tmp_path: Path) -> None:
    """SIGKILL of a master: its conversations are refused, then go on; the scripts are sent again.

    Until then a store that waits for a replica has one in this shard, and none in the others.
    """
    with running_cluster(tmp_path) as cluster:
        dying, living, _ = cluster.servers
        cluster.add_replica(dying)
        store = RedisStore(cluster.url, timeout_s=1.0)
        careful = RedisStore(cluster.url, durability=Durability(wait_replicas=1, wait_s=0.5))
        key, other = key_on(cluster, dying), key_on(cluster, living)
        await say(careful, key)
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await say(careful, other)
        await careful.close()
        await say(store, other)
        dying.kill()
        refused, elsewhere = 0, 0
        after = None
        while after is None:
            try:
                after = await say(store, key)
            except StoreUnavailable:
                refused += 1
                await say(store, other)
                await store.ping()
                elsewhere += 1
        again = await say(store, key)
        await store.close()

    assert (2, 3) == (after.turn_count, again.turn_count)
    assert 0 < refused < 20
    assert refused == elsewhere
