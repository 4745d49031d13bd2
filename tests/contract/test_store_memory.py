"""Versions of the memory: added beside the turns, true to them, never one step back."""

import pytest

from history.conversation import Binding, Memory
from history.ports import Change, Learned
from tests.contract.store_stage import Stage, begun, say, turn


async def learned(stage: Stage, covers_to: int, *, start: int = 0, at_version: int | None = None) -> Learned:
    """What a compaction of the turns as they are now brings."""
    conversation = await stage.store.load(stage.key())
    assert conversation is not None
    version = conversation.memory_version if at_version is None else at_version
    turns = await stage.store.read(stage.key(), start, covers_to)
    return Learned(
        memory=Memory(covers_to=covers_to, version=version + 1, summary=f"up to {covers_to}", at=1.5),
        expected_version=version,
        start=start,
        digests=b"".join(one.digests for one in turns),
    )


async def summaries(stage: Stage) -> list[str]:
    conversation = await stage.store.load(stage.key())
    assert conversation is not None
    return [memory.summary for memory in conversation.memories]


async def test_a_version_is_kept_beside_a_turn_that_is_being_written(stage: Stage) -> None:
    """It needs no lease, and the turn that is committed afterwards loses nothing of it."""
    await say(stage, stage.key(), *"abc")
    version = await learned(stage, 2)
    held = await begun(stage, stage.key())

    assert await stage.store.remember(stage.key(), version)
    after = await stage.store.commit(
        stage.key(), held.lease, Change(keep=3, append=(turn("d"),), at=1.0, cut=2)
    )

    assert after.memories == (version.memory,)
    assert (await begun(stage, stage.key())).conversation.memories == (version.memory,)


async def test_of_two_that_raced_the_second_is_refused(stage: Stage) -> None:
    """Both were made of the same version before; the summary that lost would erase the one that won."""
    await say(stage, stage.key(), *"abc")
    first, second = await learned(stage, 2), await learned(stage, 3)

    assert await stage.store.remember(stage.key(), first)
    assert not await stage.store.remember(stage.key(), second)

    assert await summaries(stage) == ["up to 2"]


async def test_an_older_one_never_follows_a_newer_one(stage: Stage) -> None:
    """Not even one that knows the version before it."""
    await say(stage, stage.key(), *"abc")
    await stage.store.remember(stage.key(), await learned(stage, 3))

    assert not await stage.store.remember(stage.key(), await learned(stage, 2))

    assert await summaries(stage) == ["up to 3"]


@pytest.mark.parametrize(("keep", "fits"), [(1, False), (2, True)])
async def test_what_was_made_of_turns_that_are_others_now_is_refused(
    stage: Stage, keep: int, fits: bool
) -> None:
    """An edit among the turns it covers; behind them it does no harm."""
    await say(stage, stage.key(), *"abcd")
    version = await learned(stage, 2)
    held = await begun(stage, stage.key())
    edited = (turn("B"), turn("c"), turn("d")) if keep == 1 else (turn("C"),)
    change = Change(keep=keep, append=edited, at=1.0, save_branch=True)
    await stage.store.commit(stage.key(), held.lease, change)

    assert await stage.store.remember(stage.key(), version) is fits


async def test_a_branch_keeps_the_versions_that_are_still_true(stage: Stage) -> None:
    """Those that cover a replaced turn go, and whoever works on one of them is told."""
    await say(stage, stage.key(), *"abcdef")
    for covers_to in (1, 3, 5):
        assert await stage.store.remember(stage.key(), await learned(stage, covers_to))
    late = await learned(stage, 6)
    held = await begun(stage, stage.key())
    change = Change(keep=4, append=(turn("e"), turn("f")), at=1.0, save_branch=True)
    await stage.store.commit(stage.key(), held.lease, change)

    assert await summaries(stage) == ["up to 1", "up to 3"]
    assert not await stage.store.remember(stage.key(), late)


async def test_the_version_that_a_branch_shows_stays_whatever_came_meanwhile(stage: Stage) -> None:
    """Newer versions pushed it out while the answer was written, and cover turns that it replaces."""
    await say(stage, stage.key(), *"abcdefgh")
    for covers_to in (1, 2):
        assert await stage.store.remember(stage.key(), await learned(stage, covers_to))
    held = await begun(stage, stage.key())
    seen = held.conversation.memories[0]
    for covers_to in (4, 5, 6, 7):
        assert await stage.store.remember(stage.key(), await learned(stage, covers_to))
    change = Change(keep=2, append=(turn("C"),), at=1.0, save_branch=True, cut=1, shows=1, shown=seen)
    after = await stage.store.commit(stage.key(), held.lease, change)

    assert after.memories == (seen,)
    assert after.shows == 1


async def test_only_the_newest_versions_are_kept(stage: Stage) -> None:
    """A dialogue of years has hundreds; a window shows one."""
    await say(stage, stage.key(), *"abcdefgh")
    for covers_to in range(1, 8):
        assert await stage.store.remember(stage.key(), await learned(stage, covers_to))

    assert await summaries(stage) == ["up to 4", "up to 5", "up to 6", "up to 7"]


async def test_nothing_is_remembered_of_an_erased_conversation(stage: Stage) -> None:
    """A compaction that ends after the erasure leaves nothing behind, nor does it after a new beginning."""
    await say(stage, stage.key(), *"ab")
    version = await learned(stage, 2)
    await stage.store.erase(stage.key())

    assert not await stage.store.remember(stage.key(), version)
    assert await stage.store.load(stage.key()) is None
    await say(stage, stage.key(), *"xy")
    assert not await stage.store.remember(stage.key(), version)


async def test_a_binding_moves_only_while_no_turn_was_written(stage: Stage) -> None:
    """A pre-warm that comes late knows less than the turn that overtook it."""
    await say(stage, stage.key(), "a")
    binding = Binding(node="n", prefix=b"1", tokens=5, at=2.5)

    assert not await stage.store.rebind(stage.key(), binding, turn_count=2)
    assert not await stage.store.rebind(stage.key("other"), binding, turn_count=0)
    assert await stage.store.rebind(stage.key(), binding, turn_count=1)

    loaded = await stage.store.load(stage.key())
    assert loaded is not None
    assert loaded.binding == binding


async def test_the_version_that_the_prompt_shows_outlasts_newer_ones(stage: Stage) -> None:
    """A memory that lagged catches up by several versions; the prompt's beginning waits for the next cut."""
    await say(stage, stage.key(), *"abcdefgh")
    await stage.store.remember(stage.key(), await learned(stage, 1))
    held = await begun(stage, stage.key())
    change = Change(keep=8, append=(turn("i"),), at=1.0, cut=8, shows=1)
    await stage.store.commit(stage.key(), held.lease, change)
    for covers_to in range(2, 8):
        assert await stage.store.remember(stage.key(), await learned(stage, covers_to))

    assert await summaries(stage) == ["up to 1", "up to 4", "up to 5", "up to 6", "up to 7"]
