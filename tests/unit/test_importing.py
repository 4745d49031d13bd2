"""Imports go on where they stopped and double nothing; what was exported comes back as it was."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.beginning import Beginning, Owner
from history.conversation import Reply, Tailed
from history.errors import ConversationMismatch
from history.export import exported
from history.export_lines import events
from history.grouping import Said
from history.import_events import Event, Start, Utterance, Wrong
from history.importing import Imported, Importer, Wanted
from history.incoming import ANEW, read_incoming
from history.items import items_of
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from tests.desk import KEY, Desk, assistant, remembered, user


@pytest.fixture
def desk() -> Desk:
    return Desk()


dialogue = st.lists(
    st.builds(lambda question, said: (question, said), st.sampled_from("xyz"), st.sampled_from("XYZ")),
    min_size=1,
    max_size=9,
)


def file_of(pairs: Iterable[tuple[str, str]]) -> list[Event]:
    """What a file says."""
    found: list[Event] = [Start(seed=b"s", beginning=Beginning(owner=Owner(user="ada")), line=1)]
    for line, (question, said) in enumerate(pairs, start=2):
        found += [Utterance(Said(user(question)), line), Utterance(Said(assistant(said)), line)]
    return found


async def imported(desk: Desk, events_of: Iterable[Event], **wanted: str) -> list[Imported]:
    importer = Importer(desk.editor, desk.store, Wanted(tenant="t", **{"id": "conv_a", **wanted}))
    return [one async for one in importer.run(events_of)]


@settings(max_examples=40, deadline=None)
@given(dialogue, st.integers(0, 20), st.integers(1, 4))
def test_an_import_that_stops_anywhere_goes_on_there(
    pairs: list[tuple[str, str]], stops_at: int, chunk: int
) -> None:
    """The same command again brings the rest; once more, it brings nothing."""

    async def play() -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("history.growing.CHUNK_TURNS", chunk)
            desk, file = Desk(), file_of(pairs)

            def breaks_off() -> Iterable[Event]:
                yield from file[:stops_at]
                if stops_at < len(file):
                    raise OSError("the disk")

            try:
                await imported(desk, breaks_off())
            except OSError:
                assert stops_at < len(file)
            kept = await desk.store.load(KEY)
            before = kept.turn_count if kept else 0
            (again,) = await imported(desk, file)
            (once_more,) = await imported(desk, file)

        assert [list(pair) for pair in pairs] == await desk.said()
        assert (len(pairs) - before, before) == (again.added, again.known)
        assert (0, len(pairs)) == (once_more.added, once_more.known)
        assert ("conv_a",) == await desk.store.conversations_of("t", "ada")

    asyncio.run(play())


@settings(max_examples=40, deadline=None)
@given(dialogue, dialogue)
def test_a_file_that_has_grown_brings_what_is_new(
    first: list[tuple[str, str]], more: list[tuple[str, str]]
) -> None:
    """Also where its last question had no answer yet."""

    async def play() -> None:
        desk = Desk()
        await imported(desk, file_of(first)[:-1])
        await imported(desk, file_of([*first, *more]))
        assert [list(pair) for pair in [*first, *more]] == await desk.said()
        assert 0 == (await desk.load()).branches

    asyncio.run(play())


async def test_another_dialogue_is_not_mixed_in(desk: Desk) -> None:
    """Neither one that differs, nor one of another user, nor into one that went on elsewhere."""
    await imported(desk, file_of([("a", "A"), ("b", "B")]))
    await desk.talk("c")
    before = await desk.said()
    with pytest.raises(ConversationMismatch, match="line 3"):
        await imported(desk, file_of([("a", "A"), ("x", "X"), ("y", "Y")]))
    with pytest.raises(ConversationMismatch, match="line 4"):
        await imported(desk, file_of([("a", "A"), ("b", "B"), ("z", "Z")]))
    with pytest.raises(ConversationMismatch, match="another user"):
        await imported(desk, file_of([("a", "A")]), user="bob")

    assert before == await desk.said()


async def test_wrong_lines_are_left_out(desk: Desk) -> None:
    """If somebody insists."""
    start, *rest = file_of([("a", "A"), ("b", "B")])
    await imported(desk, [start, Wrong(2, "broken"), *rest])

    assert [["a", "A"], ["b", "B"]] == await desk.said()


async def lines_of(source: AsyncIterator[bytes]) -> list[tuple[int, bytes]]:
    return [(number, line) async for number, line in _numbered(source)]


async def _numbered(source: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for line in source:
        number += 1
        yield number, line


async def test_an_export_that_is_imported_is_the_same_conversation(desk: Desk) -> None:
    """Turns, branches, memory, cut, persona, metadata, ids of items, ratings; and the next prompt."""
    await desk.editor.append(
        KEY, [], persona=b'{"role":"system","content":"p"}', metadata=b'{"a":"b"}', owner=Owner("ada", "eli")
    )
    await desk.talk(*"abc")
    await remembered(desk, 2)
    await desk.talk(*"defghij")
    await desk.talk("J", incoming=ANEW)
    item = items_of((await desk.store.read(KEY, 9, 10))[0], 9)[-1]
    await desk.store.rate(KEY, item.id, b'{"rating":"up"}')
    lines = await lines_of(exported(desk.store, KEY, branches=True))
    other = Desk(now=desk.now)
    (done,) = await imported(other, events(lines), id="")
    again = await lines_of(exported(other.store, KEY, branches=True))
    prompts = [await one.dialogues.outlook(KEY) for one in (desk, other)]

    assert ("conv_a", 10, 0) == (done.id, done.added, done.known)
    assert lines == again
    assert prompts[0] is not None
    assert prompts[1] is not None
    assert prompts[0].prompt == prompts[1].prompt
    assert [(0, 10)] == [(one.added, one.known) for one in await imported(other, events(lines), id="")]
    assert lines == await lines_of(exported(other.store, KEY, branches=True))


async def test_a_tail_that_was_kept_is_known_for_one_after_an_import(desk: Desk) -> None:
    """It goes at the next cut there, too."""
    await desk.talk(*"abc")
    said = read_incoming(b'[{"role":"user","content":"d"}]')
    ask = Ask(owner="n", on_stop=lambda _: None, on_busy="queue", note="Luna is tired.")
    turn = await desk.dialogues.open(KEY, said, ask)
    assert isinstance(turn, OpenTurn)
    await turn.commit(Answer(message=answer({"content": "D"}), reply=Reply(completion_tokens=900)))
    other = Desk(now=desk.now)
    await imported(other, events(await lines_of(exported(desk.store, KEY, branches=True))), id="")
    (there,), (here,) = [await one.store.read(KEY, 3, 4) for one in (other, desk)]

    assert b"tired" in here.messages[0]
    assert here.tailed == Tailed(message=0, chars=len("<note>\nLuna is tired.\n</note>"), cut=0)
    assert here.tailed == there.tailed


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: lines[:-1], 1),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], b"{}", *lines[1:]], 2),
        (lambda lines: [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]], 1),
        (lambda lines: [lines[0], lines[1].replace(b'"digests":"', b'"digests":"!'), *lines[2:]], 2),
        (lambda lines: [lines[0], lines[1].replace(b'"role":"user"', b'"role":"pirate"'), *lines[2:]], 2),
    ],
)
async def test_a_broken_export_is_noticed(desk: Desk, broken: Any, line: int) -> None:
    """A line that is missing, moved or damaged is named before anything is written."""
    await desk.talk(*"abcd")
    lines = [raw async for raw in exported(desk.store, KEY, branches=True)]
    found = list(events(enumerate(broken(lines), start=1)))

    assert line == next(event.line for event in found if isinstance(event, Wrong))
