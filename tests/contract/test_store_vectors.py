"""Vectors of archived turns: beside the turns, never of another conversation, gone with it."""

import pytest
from msgspec.structs import replace

from history.meaning import NO_VECTORS, Vectors, VectorSpan, record_of, still_true
from history.ports import Change
from tests.contract.store_stage import Stage, begun, say, turn

FORM = "1.abc/4"


def record(text: str) -> bytes:
    return record_of(turn(text), [1.0, -0.5, 0.25, float(len(text))])


async def made(stage: Stage, texts: str, *, start: int = 0) -> Vectors:
    conversation = await stage.store.load(stage.key())
    assert conversation is not None
    return Vectors(
        form=FORM,
        past=conversation.past.number,
        created_at=conversation.created_at,
        start=start,
        records=tuple(map(record, texts)),
    )


async def say_and_cut(stage: Stage, texts: str, *, keep: int, cut: int) -> None:
    held = await begun(stage, stage.key())
    change = Change(keep=keep, append=tuple(map(turn, texts)), at=2.0, cut=cut, save_branch=True)
    await stage.store.commit(stage.key(), held.lease, change)


async def test_they_are_added_to_and_read_in_part(stage: Stage) -> None:
    await say(stage, stage.key(), *"abcd")
    store, key = stage.store, stage.key()

    assert await store.vectors(key, 0, 9) == (NO_VECTORS, ())
    assert await store.embed(key, await made(stage, "ab"), most=9)
    assert await store.embed(key, await made(stage, "cd", start=2), most=9)

    assert await store.vectors(key) == (VectorSpan(form=FORM, past=0, start=0, stop=4), ())
    assert (await store.vectors(key, 1, 3))[1] == (record("b"), record("c"))
    assert (await store.vectors(key, 3, 9))[1] == (record("d"),)


async def test_the_same_ones_twice_change_nothing(stage: Stage) -> None:
    """Two replicas tend the same conversation, or an answer got lost."""
    await say(stage, stage.key(), *"abc")
    vectors = await made(stage, "abc")

    assert await stage.store.embed(stage.key(), vectors, most=9)
    before = await stage.store.vectors(stage.key(), 0, 9)
    assert await stage.store.embed(stage.key(), await made(stage, "bc", start=1), most=9)

    assert await stage.store.vectors(stage.key(), 0, 9) == before


async def test_the_oldest_go_beyond_the_bound(stage: Stage) -> None:
    await say(stage, stage.key(), *"abcd")
    await stage.store.embed(stage.key(), await made(stage, "abc"), most=2)
    await stage.store.embed(stage.key(), await made(stage, "d", start=3), most=2)

    span, records = await stage.store.vectors(stage.key(), 0, 9)

    assert (span.start, span.stop, records) == (2, 4, (record("c"), record("d")))


@pytest.mark.parametrize("start", [0, 3])
async def test_another_form_or_a_gap_begins_anew(stage: Stage, start: int) -> None:
    """Vectors of two models are not comparable."""
    await say(stage, stage.key(), *"abcd")
    await stage.store.embed(stage.key(), await made(stage, "ab"), most=9)
    other = await made(stage, "d", start=start)

    assert await stage.store.embed(stage.key(), replace(other, form="2" if start == 0 else FORM), most=9)

    span, records = await stage.store.vectors(stage.key(), 0, 9)
    assert (span.start, span.stop, records) == (start, start + 1, (record("d"),))


async def test_those_of_turns_that_were_replaced_meanwhile_are_refused(stage: Stage) -> None:
    """And those that are there already tell by their stamps which of them are still true."""
    await say_and_cut(stage, "abcd", keep=0, cut=4)
    late = await made(stage, "cd", start=2)
    await stage.store.embed(stage.key(), await made(stage, "abcd"), most=9)

    await say_and_cut(stage, "xd", keep=2, cut=4)

    assert not await stage.store.embed(stage.key(), late, most=9)
    _, records = await stage.store.vectors(stage.key(), 0, 9)
    assert still_true(records, await stage.store.digests(stage.key())) == 2


async def test_erased_they_are_gone_and_do_not_come_back(stage: Stage) -> None:
    """Also where the id is used again, with the same words, before what was under way arrives."""
    await say(stage, stage.key(), *"ab")
    late = await made(stage, "ab")
    await stage.store.embed(stage.key(), late, most=9)

    await stage.store.erase(stage.key())
    assert not await stage.store.embed(stage.key(), late, most=9)
    await say_and_cut(stage, "ab", keep=0, cut=1)
    assert not await stage.store.embed(stage.key(), late, most=9)

    assert await stage.store.vectors(stage.key(), 0, 9) == (NO_VECTORS, ())


async def test_another_conversation_has_none_of_them(stage: Stage) -> None:
    await say(stage, stage.key(), *"ab")
    await say(stage, stage.key("other"), *"ab")
    await stage.store.embed(stage.key(), await made(stage, "ab"), most=9)

    assert await stage.store.vectors(stage.key("other"), 0, 9) == (NO_VECTORS, ())
