"""Forks: a conversation copied as far as wanted, with the beginning that the other one has."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.beginning import Owner
from history.conversation import Binding, ConversationKey, Turn
from history.errors import ConversationBusy, ConversationNotFound
from history.forking import Until
from history.incoming import ANEW, read_incoming
from history.items import items_of
from tests.desk import KEY, OTHER, Desk, assistant, remembered, user


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_fork_begins_with_the_same_prompt(desk: Desk) -> None:
    """Persona, memory, cut, binding: the node that has the one has the other."""
    await desk.editor.append(KEY, [], persona=b'{"role":"system","content":"p"}', owner=Owner("ada", "eli"))
    await desk.talk(*"abc")
    await remembered(desk, 2)
    await desk.talk(*"defghijk")
    await desk.store.rebind(KEY, Binding("n", b"p", 5, 1.0), turn_count=11)
    await desk.forks.fork(KEY, OTHER, None, b'{"a":"b"}')
    source, copy = await desk.load(), await desk.load(OTHER)
    prompts = [await desk.dialogues.outlook(key) for key in (KEY, OTHER)]

    assert source.cut > 0
    assert await desk.said() == await desk.said(OTHER)
    assert prompts[0] is not None
    assert prompts[1] is not None
    assert prompts[0].prompt == prompts[1].prompt
    assert (source.cut, source.shows, source.binding, source.user) == (
        copy.cut,
        copy.shows,
        copy.binding,
        copy.user,
    )
    assert b'{"a":"b"}' == copy.metadata
    assert ("conv_a", "conv_b") == await desk.store.conversations_of("t", "ada")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 11), st.booleans(), st.data())
def test_a_fork_ends_where_it_is_told_to(turn: int, inside: bool, data: st.DataObject) -> None:
    """Behind a turn or inside one; memory that covers what is left out is left out too."""

    async def play() -> None:
        desk = Desk()
        await desk.talk(*"abcdef")
        await remembered(desk, 3)
        await desk.talk(*"ghijkl")
        stored = (await desk.store.read(KEY, turn, turn + 1))[0]
        item = data.draw(st.sampled_from(items_of(stored, turn))) if inside else None
        copy = await desk.forks.fork(KEY, OTHER, Until(turn, item), None)
        whole = await desk.said()
        cut_off = whole[: turn + 1]
        if item is not None:
            cut_off[-1] = cut_off[-1][: item.at_message + 1]

        assert cut_off == await desk.said(OTHER)
        assert copy.cut <= copy.turn_count == turn + 1
        assert [one for one in (3,) if one <= turn + 1] == [one.covers_to for one in copy.memories]

    asyncio.run(play())


async def test_of_a_fork_that_fails_nothing_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversation that it comes from was erased, or turns of it were replaced, while it was copied."""
    monkeypatch.setattr("history.growing.CHUNK_TURNS", 2)
    monkeypatch.setattr("history.pages.PAGE_TURNS", 2)
    await desk.editor.append(KEY, [], owner=Owner(user="ada"))
    await desk.talk(*"abcdef")
    read, reads = desk.store.read, itertools.count()

    async def interrupted(key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        turns = await read(key, start, stop)
        if next(reads) == 1:
            await desk.talk("other", incoming=ANEW)
        return turns

    async def erased(key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        if start == 4:
            await desk.store.erase(KEY)
        return await read(key, start, stop)

    monkeypatch.setattr(desk.store, "read", interrupted)
    copied = await desk.forks.fork(KEY, OTHER, None, None)
    assert 6 == copied.turn_count
    monkeypatch.setattr(desk.store, "read", erased)
    with pytest.raises(ConversationNotFound):
        await desk.forks.fork(KEY, ConversationKey("t", "conv_c"), None, None)

    assert await desk.store.load(ConversationKey("t", "conv_c")) is None
    assert ("conv_b",) == await desk.store.conversations_of("t", "ada")


async def test_a_fork_notices_turns_that_were_replaced(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one dialogue and half of another is neither."""
    monkeypatch.setattr("history.pages.PAGE_TURNS", 2)
    await desk.talk(*"abcdef")
    read = desk.store.read

    async def edited(key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        if start == 4 and (await desk.load()).branches == 0:
            said = [user("a"), assistant("a!"), user("B")]
            raw = b"[" + b",".join(one.json for one in said) + b"]"
            await desk.talk("B", incoming=read_incoming(raw))
            await desk.talk(*"CDEF")
        return await read(key, start, stop)

    monkeypatch.setattr(desk.store, "read", edited)
    with pytest.raises(ConversationBusy):
        await desk.forks.fork(KEY, OTHER, None, None)

    assert await desk.store.load(OTHER) is None
