"""Both stores of nodes keep the same promises."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.nodes.errors import NodeExists, NodeNotFound, TooManyNodes
from gateway.nodes.memory_roster import MemoryRoster
from gateway.nodes.ports import Drain, RosterStore, RosterTable
from gateway.nodes.redis_roster import ROSTER, RedisRoster
from gateway.routing.kv_source import KvSource
from gateway.routing.node import NodeSpec
from history.redis_client import redis_client
from history.redis_place import parse_place

MAX_NODES = 3


@pytest.fixture(params=["memory", "valkey", "cluster", "sentinel"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RosterStore]:
    """An empty store that takes three nodes."""
    if request.param == "memory":
        yield MemoryRoster(max_nodes=MAX_NODES)
        return
    place = parse_place(request.getfixturevalue(f"{request.param}_url"))
    async with redis_client(place, timeout_s=5) as client:
        await client.delete(ROSTER)
        yield RedisRoster(client, max_nodes=MAX_NODES)


def spec(name: str = "a:1") -> NodeSpec:
    """A node with every field in use."""
    return NodeSpec(
        engine="sglang",
        url="http://10.0.0.1:30000",
        id=name,
        models=("small", "large"),
        weight=2.5,
        max_running=64,
        api_key="sk-secret",
        rank=3,
        kv_events=KvSource("tcp://10.0.0.1:5560", replay="tcp://10.0.0.1:5570", topic="kv"),
    )


async def test_an_empty_store_has_an_empty_table(store: RosterStore) -> None:
    """No node is no error."""
    table = await store.table()

    assert ({}, {}, frozenset()) == (table.specs, table.drains, table.unreadable)
    assert await store.version() == table.version


async def test_what_was_stored_is_what_is_read(store: RosterStore) -> None:
    """Every field comes back, of nodes and of drains, also of a node that was not added."""
    await store.add(spec("a:1"))
    await store.add(spec("drain:b"))
    await store.drain("a:1", Drain(within_s=2.5))
    await store.drain("configured", Drain())

    table = await store.table()

    assert {"a:1": spec("a:1"), "drain:b": spec("drain:b")} == table.specs
    assert {"a:1": Drain(2.5), "configured": Drain(None)} == table.drains


async def test_a_second_node_with_the_same_id_is_refused(store: RosterStore) -> None:
    """The first one stays as it was."""
    await store.add(spec())

    with pytest.raises(NodeExists):
        await store.add(msgspec.structs.replace(spec(), url="http://elsewhere:1"))

    assert {"a:1": spec()} == (await store.table()).specs


async def test_a_full_store_takes_no_more(store: RosterStore) -> None:
    """Nodes and drains are bounded, each by themselves; forgetting one makes room."""
    for name in "abc":
        await store.add(spec(name))
        await store.drain(name, Drain())
    with pytest.raises(TooManyNodes):
        await store.add(spec("d"))
    with pytest.raises(TooManyNodes):
        await store.drain("d", Drain())
    await store.drain("a", Drain(1.0))

    await store.forget("a")
    await store.add(spec("d"))
    await store.drain("d", Drain())

    table = await store.table()
    assert {"b", "c", "d"} == table.specs.keys() == table.drains.keys()


async def test_forgetting_a_node_forgets_its_drain(store: RosterStore) -> None:
    """One that is added again later is not drained from its start."""
    await store.add(spec())
    await store.drain("a:1", Drain())
    await store.forget("a:1")

    assert RosterTable(version=await store.version()) == await store.table()
    with pytest.raises(NodeNotFound):
        await store.forget("a:1")


async def test_only_an_added_node_can_be_forgotten(store: RosterStore) -> None:
    """A drain alone, as of a configured node, is no node."""
    await store.drain("configured", Drain())
    with pytest.raises(NodeNotFound):
        await store.forget("configured")

    assert {"configured": Drain()} == (await store.table()).drains


async def test_every_change_gives_a_version_never_seen_before(store: RosterStore) -> None:
    """Whoever compares versions sees each of them; what changes nothing keeps the version."""
    versions = [await store.version()]
    await store.add(spec())
    versions.append(await store.version())
    await store.drain("a:1", Drain())
    versions.append(await store.version())
    await store.undrain("a:1")
    versions.append(await store.version())
    await store.forget("a:1")
    versions.append(await store.version())
    await store.undrain("a:1")

    assert 5 == len(set(versions))
    assert versions[-1] == await store.version() == (await store.table()).version


async def test_a_record_of_a_newer_version_is_named_and_hides_no_other(valkey_url: str) -> None:
    """A rolling upgrade has both at once."""
    async with redis_client(parse_place(valkey_url), timeout_s=5) as client:
        await client.delete(ROSTER)
        store = RedisRoster(client)
        await store.add(spec("known"))
        newer = {**msgspec.to_builtins(spec("newer")), "colour": "blue"}
        await client.hset(ROSTER, "node:newer", msgspec.msgpack.encode(newer))
        table = await store.table()

    assert ({"known"}, {"newer"}) == (set(table.specs), set(table.unreadable))
