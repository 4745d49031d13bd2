"""Branches of a conversation, and ratings of its items: kept beside the turns, found by their place."""

import pytest

from history.errors import ConversationNotFound
from history.ports import Change
from history.store_rules import RATINGS_KEPT
from tests.contract.store_stage import Stage, begun, say, turn


async def replace(stage: Stage, keep: int, *texts: str, **more: object) -> None:
    """Put other turns in the place of those from `keep` on."""
    held = await begun(stage, stage.key(), f"writer of {texts}")
    change = Change(
        keep=keep,
        append=tuple(turn(text) for text in texts),
        at=1.0,
        save_branch=True,
        **more,  # type: ignore[arg-type]  # per test
    )
    await stage.store.commit(stage.key(), held.lease, change)


async def test_branches_are_found_by_where_they_left(stage: Stage) -> None:
    """Among hundreds, those of one message are known without reading any."""
    await say(stage, stage.key(), *"abc")
    await replace(stage, 2, "C")
    await replace(stage, 0, "A", "B")
    await replace(stage, 1, "b")
    await replace(stage, 1, "bb")

    assert await stage.store.branches_at(stage.key(), 0) == (2,)
    assert await stage.store.branches_at(stage.key(), 1) == (3, 4)
    assert await stage.store.branches_at(stage.key(), 2) == (1,)
    assert await stage.store.branches_at(stage.key(), 9) == ()
    assert await stage.store.branches_at(stage.key("nobody"), 0) == ()


async def test_a_branch_changes_places_with_what_it_replaces(stage: Stage) -> None:
    """Nothing is lost and nothing is doubled, however often somebody changes their mind."""
    await say(stage, stage.key(), *"abc")
    await replace(stage, 1, "B")
    for texts in (("b", "c"), ("B",), ("b", "c")):
        await replace(stage, 1, *texts, into_branch=1)

    conversation = await stage.store.load(stage.key())
    assert conversation is not None
    assert (conversation.branches, conversation.turn_count) == (1, 3)
    assert await stage.store.branches_at(stage.key(), 1) == (1,)
    assert (1, (turn("B"),)) == await stage.store.branch(stage.key(), 1)
    assert (turn("a"), turn("b"), turn("c")) == await stage.store.read(stage.key(), 0, 9)


@pytest.mark.parametrize("number", [1, 2])
async def test_a_branch_of_another_place_is_not_overwritten(stage: Stage, number: int) -> None:
    """What left at one turn says nothing about another; then nothing is written."""
    await say(stage, stage.key(), *"abc")
    await replace(stage, 2, "C")
    with pytest.raises(ValueError, match=f"branch {number}"):
        await replace(stage, 1, "B", into_branch=number)

    assert (2, (turn("c"),)) == await stage.store.branch(stage.key(), 1)
    assert await stage.store.branches_at(stage.key(), 1) == ()
    assert (turn("a"), turn("b"), turn("C")) == await stage.store.read(stage.key(), 0, 9)


async def test_branches_can_come_with_a_change(stage: Stage) -> None:
    """What an import brings is there as if it had been replaced here."""
    held = await begun(stage, stage.key())
    brought = ((0, (turn("A"),)), (1, (turn("B"), turn("C"))), (0, (turn("AA"),)))
    change = Change(keep=0, append=(turn("a"), turn("b")), at=1.0, branches=brought)
    after = await stage.store.commit(stage.key(), held.lease, change)

    assert after.branches == 3
    assert await stage.store.branches_at(stage.key(), 0) == (1, 3)
    assert list(brought) == [await stage.store.branch(stage.key(), number) for number in (1, 2, 3)]


async def test_a_stretch_of_digests(stage: Stage) -> None:
    """A long dialogue is held against another one piece by piece."""
    await say(stage, stage.key(), *"abcd")
    digests = [turn(text).digests for text in "abcd"]

    assert tuple(digests) == await stage.store.digests(stage.key())
    assert tuple(digests[1:3]) == await stage.store.digests(stage.key(), 1, 3)
    assert tuple(digests[2:]) == await stage.store.digests(stage.key(), 2)
    assert await stage.store.digests(stage.key(), 2, 2) == ()
    assert await stage.store.digests(stage.key(), 7, 9) == ()


async def test_ratings_are_kept_changed_and_taken_back(stage: Stage) -> None:
    """One for each item; asked for by the item."""
    await say(stage, stage.key(), "a")
    assert await stage.store.rate(stage.key(), "x", b"up")
    assert await stage.store.rate(stage.key(), "y", b"up")
    assert await stage.store.rate(stage.key(), "x", b"down")
    assert await stage.store.rate(stage.key(), "y", b"")

    assert await stage.store.ratings(stage.key(), ["y", "x", "z"]) == (b"", b"down", b"")
    assert await stage.store.ratings(stage.key(), []) == ()


async def test_ratings_need_a_conversation_and_go_with_it(stage: Stage) -> None:
    """Nothing is kept of what is not there, and nothing stays of what was erased."""
    with pytest.raises(ConversationNotFound):
        await stage.store.rate(stage.key(), "x", b"up")
    await say(stage, stage.key(), "a")
    await stage.store.rate(stage.key(), "x", b"up")
    await stage.store.erase(stage.key())
    await say(stage, stage.key(), "a")

    assert await stage.store.ratings(stage.key(), ["x"]) == (b"",)


async def test_ratings_have_a_bound(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest is refused, and the others stay."""
    for store in ("history.memory_store", "history.redis_store"):
        monkeypatch.setattr(f"{store}.RATINGS_KEPT", 3)
    await say(stage, stage.key(), "a")
    kept = [await stage.store.rate(stage.key(), item, b"up") for item in "abcd"]

    assert RATINGS_KEPT > 3
    assert kept == [True, True, True, False]
    assert await stage.store.rate(stage.key(), "a", b"down")
    assert await stage.store.ratings(stage.key(), list("abcd")) == (b"down", b"up", b"up", b"")
