"""Memory and Redis answer any sequence of commands alike, fences and places in the queue included."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from history.conversation import Binding, ConversationKey, Lease, Memory
from history.errors import HistoryError
from history.memory_store import MemoryStore
from history.ports import Archived, Begun, Busy, Change, Claim, ConversationStore, Learned
from history.redis_store import RedisStore
from tests.contract.store_stage import age, turn

LEASE_MS = 10_000

owners = st.sampled_from(["a", "b", "c", "d"])
users = st.sampled_from(["u", "v"])
places = st.sampled_from([0, 0, 0, 1])
small = st.integers(-1, 5)
items = st.sampled_from(["msg_1", "\u9879"])
leases = st.integers(0, 5)
changes = st.builds(
    lambda texts, **fields: Change(append=tuple(turn(text) for text in texts), **fields),
    st.lists(st.sampled_from("xyz"), max_size=3),
    keep=small,
    at=st.floats(0, 1e10),
    save_branch=st.booleans(),
    into_branch=st.sampled_from([0, 0, 0, 1, 2]),
    branches=st.lists(
        st.builds(lambda at, text: (at, (turn(text),)), st.integers(0, 3), st.sampled_from("vw")), max_size=2
    ).map(tuple),
    cut=st.none() | small,
    shows=st.none() | small,
    shown=st.none() | st.integers(0, 5).map(lambda n: Memory(covers_to=n, version=9, summary="s")),
    metadata=st.none() | st.just(b'{"a":"b"}'),
    persona=st.none() | st.binary(max_size=3),
    new_epoch=st.booleans(),
    user=st.none() | st.sampled_from(["", "u", "v"]),
    character=st.none() | st.text(max_size=3),
    binding=st.none() | st.just(Binding(node="n", prefix=b"\0", tokens=1, at=0.5)),
)
claims = st.builds(
    Claim,
    owner=owners,
    lease_ms=st.just(LEASE_MS),
    queue_limit=st.sampled_from([0, 1, 3, 3]),
    must_exist=st.sampled_from([False, False, False, True]),
    interrupt=st.booleans(),
    digest_turns=st.integers(0, 3),
)
# `turn` and `fitting` keep what there is, as a gateway does; a plain `commit` is mostly one to be refused.
# Common commands stand more than once: what erases everything must be rare for the rest to be seen.
commands = st.sampled_from(
    [
        *["begin"] * 8,
        *["turn"] * 5,
        *["fitting", "renew", "release", "pass"] * 3,
        *["remember", "shed", "restore"] * 4,
        *["commit", "repeat", "leave", "register", "unregister", "rebind", "describe", "rate"] * 2,
        *["read", "branch", "branches_at", "ratings", "digests", "conversations_of", "erase", "erase_user"],
    ]
).flatmap(lambda name: st.tuples(st.just(name), *ARGUMENTS[name]))
ARGUMENTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "begin": (places, claims),
    "turn": (places, claims, changes),
    "fitting": (places, changes),
    "commit": (places, leases, changes),
    "repeat": (places,),
    "renew": (places, leases),
    "release": (places, leases),
    "leave": (places, owners),
    "erase": (places,),
    "read": (places, small, small),
    "branch": (places, small),
    "branches_at": (places, st.integers(0, 3)),
    "rate": (places, items, st.sampled_from([b"up", b"down", b""])),
    "ratings": (places, st.lists(items)),
    "digests": (places, st.integers(0, 3), st.none() | st.integers(0, 5)),
    "remember": (
        places,
        st.sampled_from([0, 0, 0, 1]),
        st.integers(0, 4),
        small,
        st.sampled_from([b"", b"", b"x"]),
    ),
    "rebind": (
        places,
        st.builds(Binding, node=st.just("m"), prefix=st.just(b"1"), tokens=small, at=st.just(1.5)),
        small,
    ),
    "shed": (places, st.sampled_from([0, 0, 0, 1]), small, st.sampled_from([b"", b"", b"x"])),
    "restore": (places, st.integers(1, 3), st.sampled_from([0, 0, 0, 1])),
    "describe": (places, st.sampled_from([b"", b'{"c":1}'])),
    "register": (places, users),
    "unregister": (places, users),
    "conversations_of": (users,),
    "erase_user": (users,),
    "pass": (places, st.sampled_from([1_500, 4_000, 11_000])),
}


@dataclass
class Pair:
    """Both stores under one tenant, and what their writers hold."""

    memory: MemoryStore
    redis: RedisStore
    raw: "Redis[bytes]"
    ahead_ms: dict[str, int]
    keys: tuple[ConversationKey, ConversationKey]
    granted: dict[int, list[Lease]] = field(default_factory=lambda: {0: [], 1: []})
    last: dict[int, tuple[Lease, Change]] = field(default_factory=dict)

    async def obey(self, name: str, *arguments: Any) -> tuple[Any, Any]:
        """Give both stores the command; what each answered or raised."""
        if name in ("conversations_of", "erase_user"):
            return await self.both(lambda store: getattr(store, name)(self.keys[0].tenant, *arguments))
        place, *rest = arguments
        key = self.keys[place]
        if name == "pass":
            # Both conversations age: the clock in memory is one.
            self.ahead_ms["ms"] += rest[0]
            for each in self.keys:
                await age(self.raw, each, rest[0])
            return None, None
        own = {
            "unregister": self.unregister,
            "shed": self.shed,
            "restore": self.restore,
            "register": self.register,
            "remember": self.remember,
            "rebind": self.rebind,
            "turn": self.turn,
        }
        if name in own:
            return await own[name](place, *rest)
        if name in ("commit", "repeat", "fitting", "renew", "release"):
            return await self.with_lease(name, place, rest)
        answers = await self.both(lambda store: getattr(store, name)(key, *rest))
        if isinstance(answers[0], Begun):
            self.granted[place].append(answers[0].lease)
        return answers

    async def turn(self, place: int, claim: Claim, change: Change) -> tuple[Any, Any]:
        answers = await self.obey("begin", place, claim)
        began = isinstance(answers[0], Begun) and answers[0] == answers[1]
        return await self.obey("fitting", place, change) if began else answers

    async def unregister(self, place: int, user: str) -> tuple[Any, Any]:
        key = self.keys[place]
        return await self.both(lambda store: store.unregister(key.tenant, user, key))

    async def register(self, place: int, user: str) -> tuple[Any, Any]:
        key = self.keys[place]
        return await self.both(lambda store: store.register(key.tenant, user, key))

    async def rebind(self, place: int, binding: Binding, turn_count: int) -> tuple[Any, Any]:
        return await self.both(lambda store: store.rebind(self.keys[place], binding, turn_count=turn_count))

    async def shed(self, place: int, late: int, count: int, wrong: bytes) -> tuple[Any, Any]:
        key = self.keys[place]
        conversation = await self.memory.load(key)
        start = (conversation.base if conversation else 0) + late
        stop = start + max(0, count)
        digests = b"".join((await self.memory.digests(key))[start:stop]) + wrong
        archived = Archived(start=start, stop=stop, digests=digests)
        return await self.both(lambda store: store.shed(key, archived))

    async def restore(self, place: int, count: int, late: int) -> tuple[Any, Any]:
        key = self.keys[place]
        conversation = await self.memory.load(key)
        base = conversation.base if conversation else 0
        start = max(0, base - count) + late
        turns = [turn(f"restored {at}") for at in range(start, base + late)]
        return await self.both(lambda store: store.restore(key, start, turns))

    async def remember(
        self, place: int, late: int, back: int, covers_to: int, wrong: bytes
    ) -> tuple[Any, Any]:
        """A version that is made of what is there, or of something else."""
        key = self.keys[place]
        conversation = await self.memory.load(key)
        version = (conversation.memory_version if conversation else 0) - late
        start = max(0, covers_to - back)
        made_of = b"".join(one.digests for one in await self.memory.read(key, start, covers_to))
        memory = Memory(
            covers_to=max(0, covers_to), version=version + 1, summary="\u8bb0", facts=("f",), at=0.5
        )
        learned = Learned(memory=memory, expected_version=version, start=start, digests=made_of + wrong)
        return await self.both(lambda store: store.remember(key, learned))

    async def with_lease(self, name: str, place: int, rest: list[Any]) -> tuple[Any, Any]:
        """A command of a writer, who may long have lost its lease."""
        granted, key = self.granted[place], self.keys[place]
        if not granted or (name == "repeat" and place not in self.last):
            return None, None
        if name == "repeat":
            return await self.commit(place, *self.last[place])
        if name == "fitting":
            conversation = await self.memory.load(key)
            count = conversation.turn_count if conversation else 0
            keep = max(0, count - max(0, rest[0].keep - 2))
            cut = None if rest[0].cut is None else min(max(0, rest[0].cut), keep + len(rest[0].append))
            fields = {name: getattr(rest[0], name) for name in rest[0].__struct_fields__}
            return await self.commit(place, granted[-1], Change(**{**fields, "keep": keep, "cut": cut}))
        lease = granted[-1 - rest[0] % len(granted)]
        if name == "commit":
            return await self.commit(place, lease, rest[1])
        return await self.both(lambda store: getattr(store, name)(key, lease))

    async def commit(self, place: int, lease: Lease, change: Change) -> tuple[Any, Any]:
        self.last[place] = (lease, change)
        return await self.both(lambda store: store.commit(self.keys[place], lease, change))

    async def both(self, call: Callable[[ConversationStore], Awaitable[Any]]) -> tuple[Any, Any]:
        return await outcome(call(self.memory)), await outcome(call(self.redis))


async def everything(store: ConversationStore, key: ConversationKey) -> tuple[Any, ...]:
    """What anybody can see of a conversation."""
    return await store.load(key), await store.read(key, 0, 999), await store.digests(key)


async def outcome(call: Awaitable[Any]) -> Any:
    """The answer, or the error as something that can be compared; times to go lose their last digits."""
    try:
        answer = await call
    except (HistoryError, ValueError) as error:
        return type(error), str(error)
    return Busy(answer.position, round(answer.holder_expires_ms, -4)) if isinstance(answer, Busy) else answer


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples, so that the connections last."""
    with asyncio.Runner() as opened:
        yield opened


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sequence=st.lists(commands, min_size=15, max_size=50))
def test_two_stores_agree_on_random_command_sequences(
    runner: asyncio.Runner, valkey_url: str, sequence: list[tuple[Any, ...]]
) -> None:
    """Whatever is asked in whatever order, both give the same answers and raise the same errors."""
    runner.run(play(valkey_url, sequence))


async def play(url: str, sequence: list[tuple[Any, ...]]) -> None:
    """Play one sequence on two fresh conversations of one tenant."""
    ahead, tenant = {"ms": 0}, uuid.uuid4().hex
    pair = Pair(
        memory=MemoryStore(now_ms=lambda: time.monotonic() * 1_000 + ahead["ms"]),
        redis=RedisStore(url),
        raw=Redis.from_url(url),
        ahead_ms=ahead,
        keys=(ConversationKey(tenant, "{0}"), ConversationKey(tenant, "1")),
    )
    try:
        for command in sequence:
            in_memory, in_redis = await pair.obey(*command)
            assert in_memory == in_redis, command
            for key in pair.keys:
                in_memory, in_redis = await pair.both(lambda store, key=key: everything(store, key))
                assert in_memory == in_redis, command
    finally:
        await pair.redis.close()
        await pair.raw.aclose()
