"""A master behind sentinels: found by them, followed when they change it, and nothing else believed."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pytest

from gateway.keys.errors import KeyStoreUnavailable
from gateway.keys.key import Grant, Key
from gateway.keys.redis_keys import RedisKeys
from history.conversation import Conversation, ConversationKey, Turn
from history.errors import StoreUnavailable
from history.ports import Begun, Change, Claim
from history.redis_client import redis_client
from history.redis_keys import conversation_keys
from history.redis_place import Durability, parse_place
from history.redis_store import RedisStore
from tests.conftest import Valkey
from tests.ports import free_port
from tests.redis_topologies import MASTER_NAME, Watched, asking, running_watched

TURN = Turn(messages=(b'{"role":"user","content":"hello"}',), digests=bytes(16))
PASSWORD = "secret-of-sentinels"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A master, a replica and sentinels that ask for a password."""
    with running_watched(tmp_path_factory.mktemp("watched"), sentinel_password=PASSWORD) as servers:
        yield servers


async def say(store: RedisStore, key: ConversationKey) -> Conversation:
    """One begin and one commit."""
    held = await store.begin(key, Claim(owner=uuid.uuid4().hex, lease_ms=10_000, queue_limit=8))
    assert isinstance(held, Begun)
    count = held.conversation.turn_count
    return await store.commit(key, held.lease, Change(keep=count, append=(TURN,), at=1.0))


def kept_at(server: Valkey, key: ConversationKey) -> int:
    """How many turns of a conversation a server has."""
    with asking(server) as client:
        return client.llen(conversation_keys(key).turns)


async def eventually(call: Callable[[], Awaitable[Key]]) -> Key:
    """What the key store answers as soon as it does."""
    for _ in range(100):
        with contextlib.suppress(KeyStoreUnavailable):
            return await call()
        await asyncio.sleep(0.05)
    raise AssertionError("the key store never answered")


def role_of(server: Valkey) -> str:
    with asking(server) as client:
        return client.info("replication")["role"]


async def test_sentinels_are_told_their_password_and_only_theirs(watched: Watched) -> None:
    """Without it there is no master, and the error says so without showing anything."""
    store, ignorant = RedisStore(watched.url), RedisStore(watched.url.partition("&")[0], timeout_s=0.5)
    await store.ping()
    with pytest.raises(StoreUnavailable, match="No master found") as caught:
        await ignorant.ping()
    await store.close()
    await ignorant.close()

    assert PASSWORD not in str(caught.value)
    assert 200 > len(str(caught.value))


async def test_one_sentinel_that_answers_is_enough(watched: Watched) -> None:
    """The others may be down."""
    sentinels, _, query = watched.url.removeprefix("redis+sentinel://").partition("/")
    store = RedisStore(f"redis+sentinel://127.0.0.1:{free_port()},{sentinels.split(',')[0]}/{query}")
    conversation = await say(store, ConversationKey(uuid.uuid4().hex, "c"))
    await store.close()

    assert 1 == conversation.turn_count


async def test_unknown_master_is_unavailable(watched: Watched) -> None:
    """A wrong name is told by the name."""
    store = RedisStore(watched.url.replace(f"master={MASTER_NAME}", "master=foreign"), timeout_s=0.5)
    with pytest.raises(StoreUnavailable, match="'foreign'"):
        await store.ping()
    await store.close()


async def test_master_that_was_replaced_is_left_before_it_knows(watched: Watched) -> None:
    """It still takes turns, all of which are lost; sentinels are asked without waiting for an error."""
    store, key = RedisStore(watched.url), ConversationKey(uuid.uuid4().hex, "c")
    await say(store, key)
    watched.fail_over()
    known = kept_at(watched.master, key)
    while kept_at(watched.master, key) == known:
        await say(store, key)
        await asyncio.sleep(0.05)
    left = role_of(watched.replica)
    watched.demote()
    await store.close()

    assert "master" == left


async def test_replaced_master_acknowledges_nothing_that_waits(watched: Watched) -> None:
    """Nobody confirms what it takes, and the new one is found, which knows no script yet."""
    place, acknowledged, refused = parse_place(watched.url), 0, 0
    store = RedisStore(place, durability=Durability(wait_replicas=1, wait_s=0.5))
    key = ConversationKey(uuid.uuid4().hex, "c")
    async with redis_client(place, timeout_s=5) as client:
        keys = RedisKeys(client)
        await keys.create(Key(id="a", digest=bytes(32), grant=Grant(tenant="t", name="n"), created_at=1.0))
        await say(store, key)
        watched.fail_over()
        for _ in range(5):
            with contextlib.suppress(StoreUnavailable):
                acknowledged = (await say(store, key)).turn_count
                continue
            refused += 1
        watched.demote()
        while kept_at(watched.master, key) < 5:
            acknowledged = (await say(store, key)).turn_count
        # Sentinels tell each other every two seconds; until then, some still name the old one.
        revoked = await eventually(partial(keys.revoke, "a", now=2.0))
        table = await keys.table()
        await keys.forget("a")
    await store.close()

    assert 5 == acknowledged == kept_at(watched.master, key)
    assert 0 < refused
    assert (revoked,) == table.keys


async def test_server_that_is_no_master_any_more_is_not_used(watched: Watched) -> None:
    """Sentinels that are behind may name a replica: even reading from it would show an old dialogue."""
    store = RedisStore(watched.url, timeout_s=0.5)
    with asking(watched.master) as client:
        client.replicaof("127.0.0.1", free_port())
    with pytest.raises(StoreUnavailable, match="no master any more"):
        await store.load(ConversationKey("t", "c"))
    await store.close()
