"""Both stores of rollouts keep the same promises."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.rollout.errors import RolloutRefused
from gateway.rollout.memory_rollouts import MemoryRollouts
from gateway.rollout.ports import PROBLEMS_KEPT, RolloutStore
from gateway.rollout.record import Decision, Leaving, Rollout, Trial, Turning, Version
from gateway.rollout.redis_rollouts import LEADER, PREFIX, TABLE, RedisRollouts
from gateway.rollout.verdict import Rule
from history.redis_client import redis_client
from history.redis_place import parse_place

MAX_ALIASES = 2
ALIASES = ("luna", "a/b|c", "third")


@pytest.fixture(params=["memory", "valkey", "cluster", "sentinel"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RolloutStore]:
    """An empty store that takes two aliases."""
    if request.param == "memory":
        yield MemoryRollouts(max_aliases=MAX_ALIASES)
        return
    place = parse_place(request.getfixturevalue(f"{request.param}_url"))
    async with redis_client(place, timeout_s=5) as client:
        books = [f"{PREFIX}{kind}:{alias}" for alias in ALIASES for kind in ("book", "ills")]
        await client.delete(TABLE, LEADER, *books)
        yield RedisRollouts(client, max_aliases=MAX_ALIASES)


def record(alias: str = "luna", revision: int = 1) -> Rollout:
    """One with every field in use."""
    old, new = Version("base", "base"), Version("luna--2", "adapter", "/a/2", "base")
    return Rollout(
        alias=alias,
        current=Version("luna--1", "adapter", "/a/1", "base"),
        trial=Trial(7, new, "sharing", (0.1, 0.5), Rule(min_answers=3), 1, 12.5, "node"),
        earlier=(old,),
        leaving=(Leaving(Version("luna--0"), 3.0),),
        turning=Turning("node", "m", 4.0),
        trials=7,
        history=(Decision(1.0, "started", "luna--2", "me", "why"),),
        revision=revision,
    )


async def test_an_empty_store_has_an_empty_table(store: RolloutStore) -> None:
    """No rollout is no error."""
    table = await store.table()

    assert ({}, frozenset()) == (table.records, table.unreadable)
    assert await store.version() == table.version
    assert {} == await store.counts("luna", 1) == await store.problems("luna")


async def test_what_was_put_is_what_is_read(store: RolloutStore) -> None:
    """Every field comes back, and every change gives a version never seen before."""
    versions = [await store.version()]
    for one in (record("luna"), record("a/b|c"), record("luna", 2)):
        assert await store.put(one)
        versions.append(await store.version())

    table = await store.table()
    assert {"luna": record("luna", 2), "a/b|c": record("a/b|c")} == table.records
    assert 4 == len(set(versions))
    assert table.version == versions[-1]


async def test_whoever_was_overtaken_changes_nothing(store: RolloutStore) -> None:
    """Of two that read one revision, one is kept."""
    await store.put(record())
    mine = msgspec.structs.replace(record(revision=2), trials=8)

    assert [True, False] == [await store.put(mine), await store.put(record(revision=2))]
    assert not await store.put(record(revision=1))
    assert not await store.put(record("new", revision=2))
    assert {"luna": mine} == (await store.table()).records


async def test_many_at_once_are_one_after_the_other(store: RolloutStore) -> None:
    """Ten writers who each read the same revision: one is kept."""
    kept = await asyncio.gather(*(store.put(record()) for _ in range(10)))

    assert 1 == sum(kept)


async def test_a_full_store_takes_no_new_alias(store: RolloutStore) -> None:
    """Those that are there go on."""
    await store.put(record("luna"))
    await store.put(record("a/b|c"))

    with pytest.raises(RolloutRefused):
        await store.put(record("third"))
    assert await store.put(record("luna", 2))


async def test_counts_add_up_apart_by_alias_trial_and_version(store: RolloutStore) -> None:
    """Negative ones, too: a rating is taken back."""
    await store.count("luna", 1, {"luna--1": {"ups": 2, "answers": 1}, "x|y": {"answers": 5}})
    await store.count("luna", 1, {"luna--1": {"ups": -1, "ttft3": 1}})
    await store.count("luna", 2, {"luna--1": {"answers": 9}})
    await store.count("a/b|c", 1, {"luna--1": {"answers": 9}})
    await store.count("luna", 3, {})

    assert {
        "luna--1": {"ups": 1, "answers": 1, "ttft3": 1},
        "x|y": {"answers": 5},
    } == await store.counts("luna", 1)
    await store.prune("luna", 2)
    assert {} == await store.counts("luna", 1)
    assert {"luna--1": {"answers": 9}} == await store.counts("luna", 2)
    assert {"luna--1": {"answers": 9}} == await store.counts("a/b|c", 1)


async def test_complaints_take_the_place_of_those_before(store: RolloutStore) -> None:
    """And are bounded."""
    await store.complain("luna", {"a": "old", "b": "old"})
    await store.complain("luna", {"a": "it is full"})
    assert {"a": "it is full"} == await store.problems("luna")

    await store.complain("luna", {f"node {number}": "x" for number in range(PROBLEMS_KEPT + 9)})
    assert PROBLEMS_KEPT == len(await store.problems("luna"))
    await store.complain("luna", {})
    assert {} == await store.problems("luna")


async def test_one_leads_until_it_stops_asking(store: RolloutStore) -> None:
    """Whoever leads may go on; another one follows when it is gone."""
    assert await store.lead("one", for_ms=60_000)
    assert not await store.lead("two", for_ms=60_000)
    assert await store.lead("one", for_ms=50)
    await asyncio.sleep(0.2)
    assert await store.lead("two", for_ms=60_000)
    assert not await store.lead("one", for_ms=60_000)


async def test_a_record_of_a_newer_program_is_named_and_hides_no_other(valkey_url: str) -> None:
    """A rolling upgrade has both at once."""
    async with redis_client(parse_place(valkey_url), timeout_s=5) as client:
        await client.delete(TABLE)
        store = RedisRollouts(client)
        await store.put(record("luna"))
        newer = {**msgspec.to_builtins(record("nova")), "current": "another shape"}
        await client.hset(TABLE, "alias:nova", msgspec.msgpack.encode(newer))
        table = await store.table()

    assert ({"luna"}, {"nova"}) == (set(table.records), set(table.unreadable))
