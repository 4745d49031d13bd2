"""What every conversation store promises: what was written is read back, all of it or nothing."""

import pytest

from history.conversation import Binding, Conversation, Lease, Stored, turn_size
from history.errors import ConversationNotFound
from history.ports import Begun, Change
from tests.contract.store_stage import Stage, begun, say, turn


async def test_first_begin_starts_an_empty_conversation(stage: Stage) -> None:
    """An id that nobody used yet is new, and nothing exists before the first commit."""
    held = await begun(stage, stage.key(), "a", digest_turns=5)

    assert (
        Begun(
            conversation=Conversation(),
            turns=(),
            lease=Lease(owner="a", fence=1, duration_ms=10_000),
            is_new=True,
        )
        == held
    )
    assert await stage.store.load(stage.key()) is None


async def test_commit_is_read_back_whole(stage: Stage) -> None:
    """Every field and every byte of a turn comes back as it was written."""
    held = await begun(stage, stage.key())
    change = Change(
        keep=0,
        append=(turn("one"), turn("two", messages=3)),
        at=1234.5678,
        persona=b'{"role":"system"}',
        user="u\ud800",
        character="c",
        binding=Binding(node="http://n", prefix=b"\x00\xff", tokens=9, at=1.25),
        new_epoch=True,
    )
    written = await stage.store.commit(stage.key(), held.lease, change)
    again = await begun(stage, stage.key(), "b", digest_turns=1)

    expected = Conversation(
        user="u\ud800",
        character="c",
        persona=b'{"role":"system"}',
        epoch=1,
        turn_count=2,
        binding=change.binding,
        stored=Stored(turns=2, bytes=sum(map(turn_size, change.append))),
        created_at=1234.5678,
        updated_at=1234.5678,
    )
    assert expected == written == again.conversation
    assert expected == await stage.store.load(stage.key())
    assert change.append == again.turns == await stage.store.read(stage.key(), 0, 2)
    assert (change.append[1].digests,) == again.digests
    assert not again.is_new


async def test_fields_left_none_stay(stage: Stage) -> None:
    """A change writes what it names; an empty persona is a value, None is not."""
    held = await begun(stage, stage.key())
    first = Change(keep=0, append=(), at=1.0, persona=b"p", user="u", character="c")
    await stage.store.commit(stage.key(), held.lease, first)
    held = await begun(stage, stage.key())
    after = await stage.store.commit(stage.key(), held.lease, Change(keep=0, append=(), at=2.0, persona=b""))

    assert (
        after.persona,
        after.user,
        after.character,
        after.epoch,
        after.created_at,
        after.updated_at,
    ) == (b"", "u", "c", 0, 1.0, 2.0)


async def test_begin_returns_the_window_only(stage: Stage) -> None:
    """Turns before the cut stay readable but are not sent along; asked for, digests reach past the cut."""
    await say(stage, stage.key(), *"abcde", cut=0)
    await say(stage, stage.key(), "f", cut=4)
    held = await begun(stage, stage.key(), digest_turns=4)

    assert (turn("e"), turn("f")) == held.turns
    assert tuple(turn(text).digests for text in "cdef") == held.digests
    assert tuple(turn(text) for text in "bc") == await stage.store.read(stage.key(), 1, 3)
    assert tuple(turn(text).digests for text in "abcdef") == await stage.store.digests(stage.key())


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (2, 1), (-5, 2), (1, 99), (7, 9)])
async def test_read_takes_any_range(stage: Stage, start: int, stop: int) -> None:
    """A range that reaches outside the dialogue is what of it lies inside."""
    await say(stage, stage.key(), *"abc")

    expected = tuple(turn(text) for text in "abc"[max(0, start) : stop])
    assert expected == await stage.store.read(stage.key(), start, stop)


async def test_unknown_conversation_reads_as_nothing(stage: Stage) -> None:
    """Reading creates nothing and fails on nothing."""
    assert await stage.store.load(stage.key()) is None
    assert await stage.store.read(stage.key(), 0, 5) == ()
    assert await stage.store.digests(stage.key()) == ()
    with pytest.raises(ConversationNotFound):
        await stage.store.branch(stage.key(), 1)


async def test_replaced_turns_are_kept_as_a_branch(stage: Stage) -> None:
    """A regenerated answer leaves its elder siblings readable, each with the place where it left."""
    await say(stage, stage.key(), *"abcd")
    held = await begun(stage, stage.key())
    change = Change(keep=2, append=(turn("C"),), at=1.0, save_branch=True)
    first = await stage.store.commit(stage.key(), held.lease, change)
    held = await begun(stage, stage.key())
    change = Change(keep=0, append=(turn("A"),), at=1.0, save_branch=True)
    second = await stage.store.commit(stage.key(), held.lease, change)

    assert (first.turn_count, first.branches) == (3, 1)
    assert (second.turn_count, second.branches) == (1, 2)
    assert (2, (turn("c"), turn("d"))) == await stage.store.branch(stage.key(), 1)
    assert (0, (turn("a"), turn("b"), turn("C"))) == await stage.store.branch(stage.key(), 2)
    assert (turn("A"),) == await stage.store.read(stage.key(), 0, 9)
    assert (turn("A").digests,) == await stage.store.digests(stage.key())
    with pytest.raises(ConversationNotFound):
        await stage.store.branch(stage.key(), 3)


async def test_replaced_turns_go_without_save_branch(stage: Stage) -> None:
    """An open turn that gets its tool result is replaced, not branched."""
    await say(stage, stage.key(), *"ab")
    held = await begun(stage, stage.key())
    change = Change(keep=1, append=(turn("B"),), at=1.0)
    after = await stage.store.commit(stage.key(), held.lease, change)

    assert (after.turn_count, after.branches) == (2, 0)
    assert (turn("a"), turn("B")) == await stage.store.read(stage.key(), 0, 9)


@pytest.mark.parametrize(
    ("keep", "asked", "expected"),
    [
        (6, None, 3),
        (6, 5, 5),
        (6, 1, 3),
        (5, None, 3),
        (5, 1, 1),
        (3, None, 3),
        (3, 0, 0),
        (2, None, 2),
        (2, 1, 1),
        (2, 3, 3),
        (0, None, 0),
    ],
)
async def test_cut_moves_back_only_where_turns_are_replaced(
    stage: Stage, keep: int, asked: int | None, expected: int
) -> None:
    """Six turns, cut at three: it only moves forward, unless stored turns are replaced."""
    await say(stage, stage.key(), *"abcde")
    await say(stage, stage.key(), "f", cut=3)
    held = await begun(stage, stage.key())
    change = Change(keep=keep, append=(turn("g"),), at=1.0, cut=asked)
    after = await stage.store.commit(stage.key(), held.lease, change)

    assert expected == after.cut
    held = await begun(stage, stage.key())
    assert after.turn_count - expected == len(held.turns)


@pytest.mark.parametrize(("keep", "cut"), [(3, None), (-1, None), (2, 4), (2, -1), (0, 2)])
async def test_impossible_change_is_refused_whole(stage: Stage, keep: int, cut: int | None) -> None:
    """A change that does not fit the dialogue writes nothing and costs nobody the lease."""
    before = await say(stage, stage.key(), *"ab")
    held = await begun(stage, stage.key())
    with pytest.raises(ValueError, match=r"after this change|a change keeps"):
        await stage.store.commit(
            stage.key(), held.lease, Change(keep=keep, append=(turn("x"),), at=2.0, cut=cut, persona=b"p")
        )

    assert before == await stage.store.load(stage.key())
    assert (await stage.store.renew(stage.key(), held.lease)).held


async def test_whole_dialogue_can_be_written_at_once(stage: Stage) -> None:
    """A client that brings its whole history needs one commit, however long it is."""
    turns = tuple(turn(str(number), messages=1) for number in range(9_000))
    held = await begun(stage, stage.key())
    await stage.store.commit(stage.key(), held.lease, Change(keep=0, append=turns, at=1.0, cut=8_998))

    assert turns == await stage.store.read(stage.key(), 0, 9_000)
    assert turns[-2:] == (await begun(stage, stage.key(), "b")).turns


async def test_ping_answers(stage: Stage) -> None:
    """A store that runs says so."""
    await stage.store.ping()
