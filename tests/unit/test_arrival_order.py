"""Turns of one conversation are stored in order of arrival, however long the trips to the store take.

What counts as arriving is that a gateway has read the whole request. Two requests on two connections have no
order before that, and no gateway could know of one.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec
import pytest

from history.conversation import ConversationKey, Reply
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from history.ports import Begun, Busy, Claim, Missing
from history.rules import DialogueRules
from history.window import WindowSetting

KEY = ConversationKey("t", "c")
TURNS = 40
RULES = DialogueRules(
    window=WindowSetting(policy="all"), queue_limit=3 * TURNS, lease_s=10.0, queue_wait_s=30.0
)


@dataclass
class FarStore:
    """A store whose trips take from nothing to `longest_s`, there and back; `heard`: owners, as they came."""

    store: MemoryStore
    dice: random.Random
    longest_s: float = 0.02
    heard: list[str] = field(default_factory=list)

    async def begin(self, key: ConversationKey, claim: Claim) -> Begun | Busy | Missing:
        await self._travel()
        if claim.owner not in self.heard:
            self.heard.append(claim.owner)
        got = await self.store.begin(key, claim)
        await self._travel()
        return got

    async def _travel(self) -> None:
        await asyncio.sleep(self.longest_s * self.dice.random() ** 3)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call: Callable[..., Awaitable[Any]] = getattr(self.store, name)

        async def slow(*args: Any, **named: Any) -> Any:
            await self._travel()
            return await call(*args, **named)

        return slow


@dataclass
class Replica:
    """One gateway's share of the work; its owners are numbered as its requests arrive."""

    name: str
    store: FarStore
    rules: DialogueRules = RULES
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        clock = asyncio.get_running_loop().time
        self.keeper = LeaseKeeper(self.store, clock=clock)  # type: ignore[arg-type]  # a store, by __getattr__
        self.dialogues = Dialogues(self.store, self.keeper, self.rules, clock)  # type: ignore[arg-type]

    async def say(self, takes_s: float = 0.0) -> None:
        """A turn that says who writes it, and takes so long to be answered."""
        await (await self.open()).commit(await self.answered(takes_s))

    async def open(self) -> OpenTurn:
        owner = f"{self.name}-{next(self.numbers)}"
        ask = Ask(owner=owner, on_stop=lambda _: None, on_busy="queue")
        said = msgspec.json.encode([{"role": "user", "content": owner}])
        turn = await self.dialogues.open(KEY, read_incoming(said), ask)
        assert isinstance(turn, OpenTurn)
        return turn

    async def answered(self, takes_s: float) -> Answer:
        await asyncio.sleep(takes_s)
        return Answer(message=answer({"content": "yes"}), reply=Reply(model="m", prompt_tokens=1))


async def stored(store: MemoryStore) -> list[str]:
    """Who wrote, oldest turn first."""
    turns = await store.read(KEY, 0, 10 * TURNS)
    return [msgspec.json.decode(turn.messages[0])["content"] for turn in turns]


@pytest.mark.parametrize("seed", range(3))
async def test_turns_of_one_replica_are_stored_as_they_arrived(seed: int) -> None:
    """The trip of a later request may be the shorter one; it is stored behind the earlier one."""
    store = MemoryStore()
    replica = Replica("a", FarStore(store, random.Random(seed)))
    async with asyncio.TaskGroup() as users:
        for number in range(TURNS):
            users.create_task(replica.say())
            if number % 7 == 0:
                await asyncio.sleep(0.005)

    assert [f"a-{number}" for number in range(TURNS)] == await stored(store)


async def test_turns_of_two_replicas_are_stored_as_the_store_heard_of_them() -> None:
    """Across replicas the store's own order holds, and each replica's order within it."""
    store, heard = MemoryStore(), list[str]()
    near = Replica("near", FarStore(store, random.Random(1), longest_s=0.002, heard=heard))
    far = Replica("far", FarStore(store, random.Random(2), longest_s=0.03, heard=heard))
    async with asyncio.TaskGroup() as users:
        for _ in range(TURNS // 2):
            users.create_task(near.say(0.001))
            users.create_task(far.say(0.001))
            await asyncio.sleep(0.002)
    order = await stored(store)

    assert heard == order
    for name in ("near", "far"):
        mine = [owner for owner in order if owner.startswith(name)]
        assert [f"{name}-{number}" for number in range(TURNS // 2)] == mine
    assert heard != sorted(heard), "the two never raced"


async def test_lease_that_expires_lets_the_next_one_in_and_no_other() -> None:
    """A holder that never comes back costs its lease, not the order of those behind it."""
    store = MemoryStore()
    rules = msgspec.structs.replace(RULES, lease_s=0.1)
    replica = Replica("a", FarStore(store, random.Random(3), longest_s=0.005), rules)
    await replica.open()
    async with asyncio.TaskGroup() as users:
        for _ in range(TURNS):
            users.create_task(replica.say())

    assert [f"a-{number}" for number in range(1, TURNS + 1)] == await stored(store)


async def test_renewed_lease_keeps_everybody_in_place() -> None:
    """An answer that takes several leases is written where it belongs: before those that waited for it."""
    store = MemoryStore()
    rules = msgspec.structs.replace(RULES, lease_s=0.3)
    replica = Replica("a", FarStore(store, random.Random(4), longest_s=0.005), rules)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(replica.keeper.run(tick_s=0.02))
        async with asyncio.TaskGroup() as users:
            users.create_task(replica.say(takes_s=1.0))
            for _ in range(TURNS):
                users.create_task(replica.say())
        keeping.cancel()

    assert replica.keeper.renewals > 1
    assert [f"a-{number}" for number in range(TURNS + 1)] == await stored(store)
