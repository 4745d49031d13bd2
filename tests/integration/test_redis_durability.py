"""Turns that wait for a replica: refused while it is behind, stored once however often they are sent."""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.keys.errors import KeyStoreUnavailable
from gateway.keys.key import ENTROPY_BYTES, Grant, Key, mint
from gateway.keys.redis_keys import RedisKeys
from history import redis_link
from history.conversation import ConversationKey, Turn
from history.errors import StoreUnavailable
from history.ports import Begun, Change, Claim
from history.redis_link import RedisLink
from history.redis_place import Durability
from history.redis_store import RedisStore
from tests.conftest import Valkey
from tests.redis_topologies import asking, new_server, wait_for_replica

ROOT = Path(__file__).parents[2]
TURN = Turn(messages=(b'{"role":"user","content":"hello"}',), digests=bytes(16))
ADD = Change(keep=0, append=(TURN,), at=1.0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Valkey, Valkey]]:
    """A master and its replica."""
    folder = tmp_path_factory.mktemp("pair")
    master = new_server(folder / "master", "--repl-diskless-sync-delay", "0")
    replica = new_server(folder / "replica", "--replicaof", f"127.0.0.1 {master.port}")
    wait_for_replica(master)
    yield master, replica
    replica.stop()
    master.stop()


@pytest.fixture
async def store(pair: tuple[Valkey, Valkey]) -> AsyncIterator[RedisStore]:
    """A store that waits for one replica."""
    opened = RedisStore(pair[0].url, durability=Durability(wait_replicas=1, wait_s=0.5))
    yield opened
    await opened.close()


@contextmanager
def stalled_replica(pair: tuple[Valkey, Valkey]) -> Iterator[None]:
    """The replica hears nothing while the block runs, and has heard everything afterwards."""
    master, replica = pair
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(replica.pid, signal.SIGCONT)
        wait_for_replica(master)


def new_key() -> ConversationKey:
    return ConversationKey(uuid.uuid4().hex, "c")


def claim() -> Claim:
    return Claim(owner=uuid.uuid4().hex, lease_ms=60_000, queue_limit=8)


async def begin(store: RedisStore, key: ConversationKey) -> Begun:
    answer = await store.begin(key, claim())
    assert isinstance(answer, Begun)
    return answer


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await call
    return str(caught.value)


async def test_waiting_costs_no_round_trip(store: RedisStore) -> None:
    """WAIT goes out with the script and comes back with it."""
    await store.commit(new := new_key(), (await begin(store, new)).lease, ADD)
    before = store.round_trips
    key = new_key()
    await store.commit(key, (await begin(store, key)).lease, ADD)

    assert 2 == store.round_trips - before


async def test_commit_is_refused_while_the_replica_is_behind(
    store: RedisStore, pair: tuple[Valkey, Valkey]
) -> None:
    """Also when it is sent again on a connection that has not written anything: the turn is not safe yet.

    Then it is acknowledged, and there is one of it.
    """
    key, again = new_key(), RedisStore(pair[0].url, durability=Durability(wait_replicas=1, wait_s=0.5))
    held = await begin(store, key)
    with stalled_replica(pair):
        first = await refused(store.commit(key, held.lease, ADD))
        second = await refused(again.commit(key, held.lease, ADD))
        stored_already = await store.read(key, 0, 9)
    after = await again.commit(key, held.lease, ADD)
    await again.close()

    assert first.startswith("0 of 1 replicas confirmed in time")
    assert first == second
    assert (TURN,) == stored_already
    assert (1, (TURN,)) == (after.turn_count, await store.read(key, 0, 9))


async def test_retried_turn_is_shown_only_when_the_replica_has_it(
    store: RedisStore, pair: tuple[Valkey, Valkey]
) -> None:
    """A retry finds its stored turn by a begin of its own, and that waits for the replica as well."""
    key = new_key()
    held = await begin(store, key)
    with stalled_replica(pair):
        await refused(store.commit(key, held.lease, ADD))
        await refused(store.begin(key, claim()))
    retried = await begin(store, key)

    assert (TURN,) == retried.turns


async def test_refused_begin_leaves_no_lease_behind(store: RedisStore, pair: tuple[Valkey, Valkey]) -> None:
    """Whoever comes next does not wait for the lease of one who went away."""
    key = new_key()
    with stalled_replica(pair):
        await refused(store.begin(key, claim()))
    held = await begin(store, key)

    assert held.is_new


async def test_erasure_is_promised_only_when_the_replica_has_it(
    store: RedisStore, pair: tuple[Valkey, Valkey]
) -> None:
    """A failover must not bring back what somebody was told is gone; asking again finishes it."""
    key = new_key()
    await store.register(key.tenant, "u", key)
    await store.commit(key, (await begin(store, key)).lease, ADD)
    with stalled_replica(pair):
        await refused(store.erase_user(key.tenant, "u"))
        await refused(store.register(key.tenant, "v", key))
    erased = await store.erase_user(key.tenant, "u")

    assert 1 == erased
    assert await store.load(key) is None


async def test_what_promises_nothing_does_not_wait(store: RedisStore, pair: tuple[Valkey, Valkey]) -> None:
    """Looking, letting go and renewing go on without a replica."""
    key = new_key()
    held = await begin(store, key)
    with stalled_replica(pair):
        renewal = await store.renew(key, held.lease)
        await store.load(key)
        await store.release(key, held.lease)
        await store.ping()

    assert renewal.held


def test_scripts_that_only_read_do_not_wait() -> None:
    """A new one fails here until the link knows it: waiting would make it write."""
    writes = re.compile(r"redis\.call\(\s*'(H?SET|HDEL|HINCRBY|[LR]PUSH|LTRIM|UNLINK|ZADD|P?EXPIRE|PERSIST)")
    scripts = {path.stem: path.read_text() for path in (ROOT / "history" / "lua").glob("*.lua")}
    del scripts["slot"]  # what the others begin with
    reading = {name for name, code in scripts.items() if not writes.search(code)}

    assert {"read", "load"} < reading
    assert reading - redis_link._PROMISE_NOTHING == set()


async def test_nothing_is_left_of_the_writes_that_are_waited_for(
    store: RedisStore, pair: tuple[Valkey, Valkey]
) -> None:
    """The key that makes WAIT mean something is gone before anybody could see it."""
    key = new_key()
    await store.commit(key, (await begin(store, key)).lease, ADD)
    with asking(pair[0]) as client:
        names = {name.decode().rpartition(":")[2] for name in client.keys(f"*{key.tenant}*")}

    assert {"meta", "turns", "digests"} == names


def fresh_key() -> tuple[bytes, Key]:
    grant = Grant(tenant="t", name="n", scopes=frozenset({"inference"}), models=frozenset(), expires_at=None)
    text, key = mint(grant, entropy=os.urandom(ENTROPY_BYTES), pepper=b"p" * 32, now=1.0)
    return text.encode(), key


async def test_changes_of_keys_are_promised_only_when_the_replica_has_them(
    pair: tuple[Valkey, Valkey],
) -> None:
    """A revocation that a failover loses would be none; asked for again, it is vouched for."""
    key = fresh_key()[1]
    link = RedisLink(pair[0].url, size=1, timeout_s=5, durability=Durability(wait_replicas=1, wait_s=0.3))
    async with Redis.from_url(pair[0].url) as client, Redis.from_url(pair[1].url) as copy:
        keys, copied = RedisKeys(client, link=link), RedisKeys(copy)
        await keys.create(key)
        assert (key,) == (await copied.table()).keys
        with stalled_replica(pair):
            for _ in range(2):
                with pytest.raises(KeyStoreUnavailable, match="0 of 1 replicas"):
                    await keys.revoke(key.id, now=2.0)
            with pytest.raises(KeyStoreUnavailable, match="0 of 1 replicas"):
                await keys.create(fresh_key()[1])
        version = await keys.version()
        assert (await keys.revoke(key.id, now=3.0)).revoked_at == 2.0
        assert version == await keys.version() == await copied.version()
        await keys.forget(key.id)
        assert key.id not in {one.id for one in (await copied.table()).keys}
    await link.close()


def test_the_command_line_waits_as_the_settings_say(pair: tuple[Valkey, Valkey]) -> None:
    """It fails, with the reason in one line, where too few replicas hear of a key."""
    env = {**os.environ, "FRIENDO_KEY_PEPPER": "p" * 32, "FRIENDO__STORE__URL": pair[0].url}
    env |= {"FRIENDO__STORE__DURABILITY__WAIT_REPLICAS": "1", "FRIENDO__STORE__DURABILITY__WAIT_S": "0.3"}
    command = [sys.executable, "-m", "gateway", "keys", "create", "--tenant", "t", "--name", "n"]

    def create() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    with stalled_replica(pair):
        refused = create()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "0 of 1 replicas" in refused.stderr
    assert create().returncode == 0
