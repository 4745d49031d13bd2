"""The recaller: indexes that come, grow and go beside the dialogues."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from history.conversation import ConversationKey, Turn
from history.errors import StoreUnavailable
from history.message import digests, message
from history.recall import RecallRule
from history.recaller import RecallCacheRule, Recaller

KEY = ConversationKey("t", "one")
FACTS = {3: "My cat is called Biscuit", 30: "The dentist lives in Porto"}


def turn(text: str) -> Turn:
    user, reply = (
        message({"role": "user", "content": text}),
        message({"role": "assistant", "content": "I see"}),
    )
    return Turn(messages=(user.json, reply.json), digests=digests((user, reply)), at=1.0)


class Store:
    """Turns of one dialogue, read as from a store under any key; counts its trips, and can hold up `KEY`."""

    def __init__(self, count: int) -> None:
        self.turns = [turn(FACTS.get(at, f"filler number{at} about topic{at}")) for at in range(count)]
        self.reads: list[tuple[int, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None

    async def read(self, key: ConversationKey, start: int, stop: int) -> Sequence[Turn]:
        self.reads.append((start, stop))
        if key == KEY:
            await self.gate.wait()
        if self.fault:
            raise self.fault
        return tuple(self.turns[start:stop])


class Stage:
    """A recaller over a store, with a clock that the test turns."""

    def __init__(self, cache: RecallCacheRule | None = None, rule: RecallRule | None = None) -> None:
        self.now = 0.0
        self.store = Store(60)
        self.recaller = Recaller(
            self.store.read, rule or RecallRule(), cache or RecallCacheRule(wait_s=5.0), lambda: self.now
        )

    async def ask(
        self, text: str, *, cut: int, archive: str = "a", key: ConversationKey = KEY
    ) -> tuple[str, list[int]]:
        got = await self.recaller.recall(key, text, archive=archive, cut=cut)
        return got.state, [one.position for one in got.passages]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.recaller.close()


async def test_an_index_is_built_once_and_grows_with_the_cut(stage: Stage) -> None:
    """One trip to build it, none while it is warm, one for what left the window since."""
    assert await stage.ask("What is my cat called?", cut=20) == ("built", [3])
    assert await stage.ask("What is my cat called?", cut=20) == ("warm", [3])
    assert await stage.ask("Where does the dentist live?", cut=41) == ("grown", [30])
    assert stage.store.reads == [(0, 20), (20, 41)]
    assert stage.recaller.reads == 2


@pytest.mark.parametrize(("text", "cut"), [("hi", 40), ("好的", 40), ("What is my cat called?", 0)])
async def test_what_refers_to_nothing_costs_nothing(stage: Stage, text: str, cut: int) -> None:
    """No trip, no thread, no index."""
    assert await stage.ask(text, cut=cut) == ("nothing", [])
    assert (stage.store.reads, stage.recaller.indexes) == ([], 0)


async def test_turns_that_leave_the_window_are_taken_without_a_trip(stage: Stage) -> None:
    """The dialogue has them in hand when the cut moves."""
    await stage.ask("What is my cat called?", cut=20)

    stage.recaller.left(KEY, stage.store.turns[20:41], archive="a", start=20)

    state, found = await stage.ask("Where does the dentist live?", cut=41)
    assert (state in ("warm", "grown"), found, stage.store.reads) == (True, [30], [(0, 20)])


async def test_turns_of_another_archive_or_behind_a_gap_are_not_taken(stage: Stage) -> None:
    """They would stand at wrong positions."""
    await stage.ask("What is my cat called?", cut=20)

    stage.recaller.left(KEY, stage.store.turns[20:41], archive="b", start=20)
    stage.recaller.left(KEY, stage.store.turns[30:41], archive="a", start=30)

    assert (await stage.ask("Where does the dentist live?", cut=41)) == ("grown", [30])
    assert stage.store.reads == [(0, 20), (20, 41)]


async def test_replaced_turns_are_found_no_more(stage: Stage) -> None:
    """Another archive is another index: nothing of the branch that was left comes back."""
    await stage.ask("Where does the dentist live?", cut=41)
    stage.store.turns[30:] = [turn("A walk in the rain")] * 30

    assert await stage.ask("Where does the dentist live?", cut=41, archive="b") == ("built", [])
    assert stage.recaller.indexes == 1


async def test_a_cut_that_moved_back_hides_what_it_shows_again(stage: Stage) -> None:
    """What the window shows is not recalled as well."""
    await stage.ask("Where does the dentist live?", cut=41)

    assert await stage.ask("Where does the dentist live?", cut=30) == ("warm", [])


async def test_a_message_does_not_wait_for_a_slow_store() -> None:
    """It goes without recall; the index is built meanwhile, by one task for all who ask."""
    stage = Stage(RecallCacheRule(wait_s=0.01))
    stage.store.gate.clear()

    assert await stage.ask("What is my cat called?", cut=20) == ("late", [])
    assert await stage.ask("What is my cat called?", cut=20) == ("late", [])
    stage.store.gate.set()
    async with asyncio.timeout(5):
        while await stage.ask("What is my cat called?", cut=20) != ("warm", [3]):
            pass

    assert stage.store.reads == [(0, 20)]
    await stage.recaller.close()


async def test_a_store_that_fails_is_told_and_tried_again(stage: Stage) -> None:
    """The one who waits learns of it; the next one does not inherit it."""
    stage.store.fault = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        await stage.ask("What is my cat called?", cut=20)

    stage.store.fault = None

    assert await stage.ask("What is my cat called?", cut=20) == ("built", [3])


async def test_opening_a_chat_makes_its_index_ready(stage: Stage) -> None:
    """So that the first message finds it warm."""
    stage.recaller.warm(KEY, archive="a", cut=20)
    await stage.ask("What is my cat called?", cut=20)

    assert await stage.ask("What is my cat called?", cut=20) == ("warm", [3])
    assert stage.store.reads == [(0, 20)]


async def test_indexes_are_bounded_in_number_and_the_one_used_longest_ago_goes() -> None:
    """A replica serves more conversations than it keeps indexes for."""
    stage = Stage(RecallCacheRule(max_indexes=2, wait_s=5.0))
    first, second, third = (ConversationKey("t", name) for name in "abc")
    for key in (first, second, first, third):
        await stage.ask("What is my cat called?", cut=20, key=key)

    states = [
        (await stage.ask("What is my cat called?", cut=20, key=key))[0] for key in (first, third, second)
    ]

    assert (states, stage.recaller.indexes) == (["warm", "warm", "built"], 2)
    await stage.recaller.close()


async def test_an_index_that_is_being_built_is_not_dropped() -> None:
    """What a message did not wait for is there for the next one, whatever else was asked meanwhile."""
    stage = Stage(RecallCacheRule(max_indexes=1, wait_s=1.0))
    stage.store.gate.clear()
    assert await stage.ask("What is my cat called?", cut=20) == ("late", [])
    stage.recaller.prune()
    assert await stage.ask("What is my cat called?", cut=20, key=ConversationKey("t", "two")) == (
        "built",
        [3],
    )
    stage.store.gate.set()

    async with asyncio.timeout(5):
        while await stage.ask("What is my cat called?", cut=20) != ("warm", [3]):
            pass

    assert stage.store.reads == [(0, 20), (0, 20)]
    await stage.recaller.close()


async def test_indexes_are_bounded_in_bytes() -> None:
    """Whatever their number; the one in use may stay alone."""
    stage = Stage(RecallCacheRule(max_bytes=100_000, wait_s=5.0))
    for name in "abcdef":
        await stage.ask("What is my cat called?", cut=20, key=ConversationKey("t", name))

    assert 1 <= stage.recaller.indexes < 6
    assert 0 < stage.recaller.bytes <= 400_000
    await stage.recaller.close()


async def test_idle_and_forgotten_indexes_are_gone(stage: Stage) -> None:
    """What was erased elsewhere does not stay in this process either."""
    other = ConversationKey("t", "two")
    await stage.ask("What is my cat called?", cut=20)
    await stage.ask("What is my cat called?", cut=20, key=other)

    stage.recaller.forget(other)
    assert stage.recaller.indexes == 1
    stage.now = 1_801.0
    stage.recaller.prune()

    assert (stage.recaller.indexes, stage.recaller.bytes) == (0, 0)


async def test_an_index_in_use_is_not_dropped_under_its_user() -> None:
    """Bounds wait until the search is over."""
    stage = Stage(RecallCacheRule(max_indexes=1, wait_s=5.0))
    keys = [ConversationKey("t", f"{at}") for at in range(12)]

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(stage.ask("What is my cat called?", cut=20, key=key)) for key in keys]

    assert [task.result() for task in asked] == [("built", [3])] * 12
    assert stage.recaller.indexes == 1
    await stage.recaller.close()


async def test_only_the_newest_turns_of_a_very_long_archive_are_kept() -> None:
    """`max_turns` bounds what is read as well."""
    stage = Stage(rule=RecallRule(max_turns=25))

    assert await stage.ask("Where does the dentist live?", cut=41) == ("built", [30])
    assert await stage.ask("What is my cat called?", cut=41) == ("warm", [])
    assert stage.store.reads == [(16, 41)]
    await stage.recaller.close()


async def test_closing_ends_what_is_being_built() -> None:
    """No task and no memory outlives it."""
    stage = Stage(RecallCacheRule(wait_s=0.01))
    stage.store.gate.clear()
    await stage.ask("What is my cat called?", cut=20)

    await stage.recaller.close()

    assert (stage.recaller.indexes, len(asyncio.all_tasks())) == (0, 1)
