"""What changes a stored dialogue without a model: items are appended, older answers selected."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.beginning import Owner
from history.compaction import CompactionRule
from history.dialogue import MAX_VERSIONS
from history.editing import Edited
from history.errors import InvalidMessages
from history.incoming import ANEW
from history.items import items_of
from history.message import Message
from history.rules import DialogueRules
from history.siblings import select, versions
from history.window import WindowSetting
from tests.desk import KEY, Desk, assistant, user


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_appended_items_are_turns_and_the_cut_moves(desk: Desk) -> None:
    """Many of them at once leave no prompt longer than the window."""
    said = [one for at in range(30) for one in (user(f"u{at}"), assistant(f"a{at}"))]
    edited = await desk.editor.append(KEY, said, owner=Owner(user="ada", character="eli"))

    assert [[f"u{at}", f"a{at}"] for at in range(30)] == await desk.said()
    assert (30, "ada", "eli") == (
        edited.conversation.turn_count,
        edited.conversation.user,
        edited.conversation.character,
    )
    assert 3 <= 30 - edited.conversation.cut <= 6
    assert ("conv_a",) == await desk.store.conversations_of("t", "ada")


async def test_an_appended_question_is_answered_with_what_comes_next(desk: Desk) -> None:
    """By a model, or by an item; it is one turn with its answer either way."""
    await desk.editor.append(KEY, [user("a")], owner=Owner())
    await desk.editor.append(KEY, [assistant("A"), user("b")])
    await desk.talk("and c")

    assert [["a", "A"], ["b", "and c", "and c!"]] == await desk.said()
    assert 0 == (await desk.load()).branches


async def test_an_answer_anew_keeps_the_old_one(desk: Desk) -> None:
    """As a sibling that has its number from the order in which they were given."""
    await desk.talk("a", "b")
    await desk.talk("other", incoming=ANEW)
    await desk.talk("third", incoming=ANEW)
    conversation = await desk.load()
    found = await versions(desk.store, KEY, conversation, 1)

    assert [["a", "a!"], ["b", "third!"]] == await desk.said()
    assert ["b!", "other!", "third!"] == [
        msgspec.json.decode(one.turn.messages[-1])["content"] for one in found
    ]
    assert [(1, False), (2, False), (3, True)] == [(one.number, not one.branch) for one in found]


async def test_an_answer_anew_is_given_from_the_same_prompt() -> None:
    """Also behind a cut, so that the node still has the KV of it."""
    window = WindowSetting(min_turns=3, max_turns=6)
    desk = Desk(rules=DialogueRules(window=window, compaction=CompactionRule(enabled=False)))
    for number in range(25):
        asked = await desk.talk(str(number))
        again = await desk.talk(f"{number} again", incoming=ANEW)

        assert asked == again


async def test_an_unanswered_message_is_answered_without_a_branch(desk: Desk) -> None:
    """Nothing is replaced."""
    await desk.editor.append(KEY, [user("a")], owner=Owner())
    before = items_of((await desk.store.read(KEY, 0, 1))[0], 0)
    await desk.talk("first", incoming=ANEW)
    after = items_of((await desk.store.read(KEY, 0, 1))[0], 0)

    assert [["a", "first!"]] == await desk.said()
    assert 0 == (await desk.load()).branches
    assert before[0].id == after[0].id


@pytest.mark.parametrize("said", [[], [assistant("Hello")]])
async def test_where_nothing_was_asked_nothing_is_answered_anew(desk: Desk, said: list[Message]) -> None:
    """An empty conversation, or a greeting alone."""
    await desk.editor.append(KEY, said, owner=Owner())
    with pytest.raises(InvalidMessages):
        await desk.talk("x", incoming=ANEW)


async def test_answers_to_one_message_have_a_bound(desk: Desk) -> None:
    """Then it is time for another message."""
    await desk.talk("a")
    for at in range(MAX_VERSIONS):
        await desk.talk(f"{at}", incoming=ANEW)
    with pytest.raises(InvalidMessages, match=str(MAX_VERSIONS)):
        await desk.talk("one too many", incoming=ANEW)

    assert MAX_VERSIONS + 1 == len(await versions(desk.store, KEY, await desk.load(), 0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=8), st.integers(0, 2))
def test_selecting_loses_nothing_and_keeps_the_numbers(numbers: list[int], behind: int) -> None:
    """Whatever somebody selects in whatever order, each number means what it meant, with all behind it."""

    async def play() -> None:
        desk = Desk()
        await desk.talk("a", "b")
        await desk.talk("2", incoming=ANEW)
        await desk.talk(*["more"] * behind)
        await select(desk.editor, desk.store, KEY, index=1, number=1)
        await desk.talk("3", incoming=ANEW)
        before = [(one.number, one.turn, one.following) for one in await shown(desk)]
        for number in numbers:
            if number == 4:
                with pytest.raises(InvalidMessages, match="no sibling 4"):
                    await select(desk.editor, desk.store, KEY, index=1, number=4)
                continue
            await select(desk.editor, desk.store, KEY, index=1, number=number)
            active = [one.number for one in await shown(desk) if not one.branch]
            assert [number] == active
            assert before == [(one.number, one.turn, one.following) for one in await shown(desk)]
        assert 2 == (await desk.load()).branches

    asyncio.run(play())


async def shown(desk: Desk) -> tuple[Any, ...]:
    return await versions(desk.store, KEY, await desk.load(), 1)


async def test_selecting_the_active_one_changes_nothing(desk: Desk) -> None:
    """It is what the client wished for."""
    await desk.talk("a")
    before = await desk.load()
    edited: Edited = await select(desk.editor, desk.store, KEY, index=None, number=1)

    assert edited.change is None
    assert before == await desk.load()
