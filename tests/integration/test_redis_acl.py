"""The documented ACL is enough, on every kind of place, and no command in it is there for nothing."""

import re
import uuid
from pathlib import Path

import pytest

from gateway.keys.key import Grant, Key
from gateway.keys.redis_keys import RedisKeys
from gateway.nodes.ports import Drain
from gateway.nodes.redis_roster import RedisRoster
from gateway.routing.node import NodeSpec
from history.conversation import ConversationKey, Turn
from history.errors import StoreUnavailable
from history.ports import Begun, Change, Claim
from history.redis_check import check_store
from history.redis_client import redis_client
from history.redis_place import Durability, RedisPlace, parse_place
from history.redis_store import RedisStore
from history.sweeper import Sweeper
from tests.conftest import Valkey
from tests.redis_topologies import asking, running_cluster, running_watched

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "redis.md").read_text()
PASSWORD = "p/a?s#s@w:o%20rd"
TURN = Turn(messages=(b'{"role":"user","content":"hello"}',), digests=bytes(16))


def documented_rule() -> list[str]:
    found = re.search(r"^ +ACL SETUSER friendo on >PASSWORD (.*)$", DOCUMENT, re.MULTILINE)
    assert found is not None
    return found.group(1).split()


def documented_extra(place: str) -> list[str]:
    """What the document adds for sentinels or for a cluster."""
    found = re.search(rf"^- (?:With|On|For) (?:a |the )?{place} also `([^`]*)`", DOCUMENT, re.MULTILINE)
    assert found is not None
    return found.group(1).split()


def grant(server: Valkey, *more: str) -> None:
    """Make the documented user on a server."""
    with asking(server) as client:
        client.execute_command("ACL", "SETUSER", "friendo", "on", f">{PASSWORD}", *documented_rule(), *more)


def refusals(server: Valkey) -> list[str]:
    """The commands that the server has refused to somebody so far."""
    with asking(server) as client:
        return [entry["object"] for entry in client.acl_log()]


def as_friendo(url: str) -> RedisPlace:
    return parse_place(url.replace("://", "://friendo@"), password=PASSWORD)


async def use_everything(place: RedisPlace) -> None:
    """Whatever a gateway asks of its store."""
    store = RedisStore(place, ttl_ms=60_000)
    key, claim = ConversationKey(uuid.uuid4().hex, "c"), Claim(owner="w", lease_ms=10_000, queue_limit=8)
    await store.ping()
    await store.register(key.tenant, "u", key)
    for keep in (0, 1, 0):
        held = await store.begin(key, claim)
        assert isinstance(held, Begun)
        await store.begin(key, Claim(owner="other", lease_ms=10_000, queue_limit=8, interrupt=True))
        await store.leave(key, "other")
        await store.renew(key, held.lease)
        branching = keep < held.conversation.turn_count
        change = Change(keep=keep, append=(TURN,), at=1.0, save_branch=branching, new_epoch=True)
        await store.commit(key, held.lease, change)
    await store.load(key)
    await store.read(key, 0, 9)
    await store.branch(key, 1)
    held = await store.begin(key, claim)
    assert isinstance(held, Begun)
    await store.release(key, held.lease)
    assert (key.id,) == await store.conversations_of(key.tenant, "u")
    await store.usage([key.tenant])
    await store.is_first(key.tenant, within_ms=10_000)
    await store.erase(key)
    await store.erase_user(key.tenant, "u")
    await store.close()
    await use_keys_and_roster(place)


async def use_keys_and_roster(place: RedisPlace) -> None:
    async with redis_client(place, timeout_s=5) as client:
        keys = RedisKeys(client)
        await keys.create(Key(id="a", digest=bytes(32), grant=Grant(tenant="t", name="n"), created_at=1.0))
        await keys.revoke("a", now=2.0)
        assert 1 == len((await keys.table()).keys)
        assert await keys.version()
        await keys.forget("a")
        nodes = RedisRoster(client)
        node = NodeSpec(engine="vllm", url=f"http://{uuid.uuid4().hex}:1")
        await nodes.add(node)
        await nodes.drain(node.name, Drain())
        await nodes.undrain(node.name)
        assert node.name in (await nodes.table()).specs
        assert await nodes.version()
        await nodes.forget(node.name)


async def test_one_server_needs_the_documented_rights(valkey: Valkey) -> None:
    """And is told one line about what it does not let us read."""
    grant(valkey)
    place = as_friendo(f"redis://127.0.0.1:{valkey.port}/1")
    await use_everything(place)
    refused = refusals(valkey)
    warnings = await check_store(place, Durability(), timeout_s=5)

    assert [] == refused
    assert 1 == len(warnings)
    assert "INFO or CONFIG GET is refused" in warnings[0]


async def test_sentinels_and_waiting_need_one_right_more(tmp_path: Path) -> None:
    """The master is asked for its role."""
    with running_watched(tmp_path) as watched:
        grant(watched.master, *documented_extra("sentinels"))
        store = RedisStore(as_friendo(watched.url), durability=Durability(wait_replicas=1))
        key = ConversationKey(uuid.uuid4().hex, "c")
        held = await store.begin(key, Claim(owner="w", lease_ms=10_000, queue_limit=8))
        assert isinstance(held, Begun)
        await store.commit(key, held.lease, Change(keep=0, append=(TURN,), at=1.0))
        await store.close()
        await use_everything(as_friendo(watched.url))
        refused = refusals(watched.master)

    assert [] == refused


async def test_cluster_needs_three_rights_more(tmp_path: Path) -> None:
    """The client has to find out which node has what."""
    with running_cluster(tmp_path) as cluster:
        for server in cluster.servers:
            grant(server, *documented_extra("cluster"))
        for _ in range(5):
            await use_everything(as_friendo(cluster.url))
        refused = [command for server in cluster.servers for command in refusals(server)]

    assert [] == refused


async def test_the_sweep_needs_one_right_more(valkey: Valkey) -> None:
    """Without it, that is said."""
    grant(valkey)
    store = RedisStore(as_friendo(valkey.url))
    sweeper = Sweeper(store, None, keep_s=0, counts=True, clock=lambda: 0.0)
    with pytest.raises(StoreUnavailable, match=r"looked through.*(permission|can't run)"):
        await sweeper.sweep()
    grant(valkey, *documented_extra("sweep"))
    key = ConversationKey("t", "c")
    held = await store.begin(key, Claim(owner="w", lease_ms=10_000, queue_limit=8))
    assert isinstance(held, Begun)
    await store.commit(key, held.lease, Change(keep=0, append=(TURN,), at=1.0))
    swept = await sweeper.sweep()
    await store.close()

    assert 1 == swept.tenants["t"].stored.turns


async def test_user_reaches_nothing_else(valkey: Valkey) -> None:
    """Neither foreign keys nor dangerous commands; a refusal is `StoreUnavailable` with its reason."""
    grant(valkey)
    place = as_friendo(valkey.url)
    async with redis_client(place, timeout_s=5) as client:
        for refused in (("GET", "foreign"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*")):
            with pytest.raises(Exception, match="o permissions"):
                await client.execute_command(*refused)
    with asking(valkey) as client:
        client.execute_command("ACL", "SETUSER", "friendo", "-hset")
    store = RedisStore(place)
    with pytest.raises(StoreUnavailable, match=r"permission|can't run"):
        await store.begin(ConversationKey("t", "c"), Claim(owner="w", lease_ms=10_000, queue_limit=8))
    await store.close()


def test_every_command_of_every_script_is_in_the_rule_and_no_other() -> None:
    """A script with a new command fails here until the document names it."""
    scripts = [*ROOT.glob("history/lua/*.lua"), *ROOT.glob("gateway/keys/*.lua")]
    code = "\n".join(path.read_text() for path in scripts)
    used = {name.lower() for name in re.findall(r"redis\.p?call\(\s*'(\w+)'", code)}
    sent = {"ping", "select", "eval", "evalsha", "script|load", "wait", "set", "unlink"}
    sent |= {"get", "hget", "zrange", "zrem"}
    allowed = {right.removeprefix("+") for right in documented_rule() if right.startswith("+")}

    assert used | sent == allowed
