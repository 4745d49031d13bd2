"""What a request's messages mean for a stored dialogue."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.compaction import CompactionRule
from history.conversation import ConversationKey, Reply
from history.dialogue import Dialogues
from history.errors import ConversationMismatch, InvalidMessages
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from history.rules import DialogueRules
from history.window import WindowSetting

KEY = ConversationKey(tenant="t", id="c")
Messages = list[dict[str, Any]]


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


class Stored:
    """A conversation in a memory store, told message by message."""

    def __init__(self, window: WindowSetting | None = None) -> None:
        self.store = MemoryStore()
        rules = DialogueRules(window=window or WindowSetting(), compaction=CompactionRule(enabled=False))
        keeper = LeaseKeeper(self.store, clock=lambda: 0.0)
        self.dialogues = Dialogues(self.store, keeper, rules, lambda: 0.0)
        self.count = 0

    async def send(self, messages: Messages, reply: str) -> Messages:
        """Send messages, get the reply; returns the prompt the model saw."""
        self.count += 1
        ask = Ask(owner=str(self.count), on_stop=lambda _: None, on_busy="queue")
        turn = await self.dialogues.open(KEY, read_incoming(msgspec.json.encode(messages)), ask)
        assert isinstance(turn, OpenTurn)
        await turn.commit(Answer(message=answer(assistant(reply)), reply=Reply()))
        return [msgspec.json.decode(message) for message in turn.prompt.messages]

    async def all(self) -> Messages:
        conversation = await self.store.load(KEY)
        assert conversation is not None
        turns = await self.store.read(KEY, 0, conversation.turn_count)
        return [msgspec.json.decode(message) for turn in turns for message in turn.messages]

    async def branches(self) -> int:
        conversation = await self.store.load(KEY)
        assert conversation is not None
        return conversation.branches


async def test_new_hi_equal_to_the_first_turn_does_not_vanish() -> None:
    """Saying the same thing again is saying something."""
    stored = Stored()
    await stored.send([user("hi")], "hello")

    await stored.send([user("hi"), assistant("hello"), user("hi")], "hello again")
    await stored.send([user("hi")], "still here")

    said = [
        user("hi"),
        assistant("hello"),
        user("hi"),
        assistant("hello again"),
        user("hi"),
        assistant("still here"),
    ]
    assert said == await stored.all()
    assert await stored.branches() == 0


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), min_size=1, max_size=12),
    st.data(),
)
def test_any_suffix_sent_with_a_new_message_continues(
    turns: list[tuple[str, str]], data: st.DataObject
) -> None:
    """A client may send all of it or any window, cut at any message: nothing is doubled or lost."""

    async def play() -> None:
        stored, told = Stored(WindowSetting(min_turns=1, max_turns=3)), []
        for asked, said in turns:
            start = data.draw(st.integers(0, len(told)))
            window = told[start:]
            if not any(message["role"] == "assistant" for message in window):
                window = []
            await stored.send([*window, user(asked)], said)
            told += [user(asked), assistant(said)]
        assert told == await stored.all()
        assert await stored.branches() == 0

    asyncio.run(play())


async def test_edited_message_makes_a_branch_and_keeps_the_old_one() -> None:
    """What differs becomes a new branch at that point."""
    stored = Stored()
    await stored.send([user("1")], "a")
    await stored.send([user("2")], "b")
    await stored.send([user("3")], "c")

    await stored.send([user("1"), assistant("a"), user("2, edited")], "B")

    assert [user("1"), assistant("a"), user("2, edited"), assistant("B")] == await stored.all()
    left_at, turns = await stored.store.branch(KEY, 1)
    assert (left_at, len(turns)) == (1, 2)


async def test_edited_answer_splits_its_turn() -> None:
    """A branch inside a turn keeps the question."""
    stored = Stored()
    await stored.send([user("1")], "a")
    await stored.send([user("2")], "b")

    await stored.send([user("1"), assistant("a, edited"), user("2")], "B")

    assert [user("1"), assistant("a, edited"), user("2"), assistant("B")] == await stored.all()
    assert await stored.branches() == 1


async def test_branch_before_the_cut_gets_a_window_of_its_own() -> None:
    """Turns that left the window come back when a client branches among them."""
    stored, told = Stored(WindowSetting(min_turns=2, max_turns=3)), []
    for number in range(10):
        await stored.send([user(f"{number}")], f"a{number}")
        told += [user(f"{number}"), assistant(f"a{number}")]

    prompt = await stored.send([*told[:6], user("other")], "new")

    assert [*told[:6], user("other"), assistant("new")] == await stored.all()
    assert prompt == [*told[:6], user("other")]


async def test_foreign_dialogue_is_refused_and_changes_nothing() -> None:
    """What matches nothing is a mismatch."""
    stored = Stored()
    await stored.send([user("1")], "a")
    before = await stored.all()

    with pytest.raises(ConversationMismatch):
        await stored.send([user("x"), assistant("y"), user("z")], "b")

    assert before == await stored.all()
    assert len(await stored.send([user("2")], "b")) == 3


async def test_whole_dialogue_is_adopted_by_an_empty_conversation() -> None:
    """A client that moves over brings its past along, greeting included."""
    stored = Stored()
    past = [assistant("Welcome."), user("1"), assistant("a"), user("2"), user("2b"), assistant("b")]

    await stored.send([{"role": "system", "content": "Luna"}, *past, user("3")], "c")

    assert [*past, user("3"), assistant("c")] == await stored.all()
    conversation = await stored.store.load(KEY)
    assert conversation is not None
    assert conversation.turn_count == 4


async def test_tool_result_without_a_waiting_call_is_refused() -> None:
    """A result has to belong to something."""
    stored = Stored()
    await stored.send([user("1")], "a")

    with pytest.raises(InvalidMessages, match="no tool call"):
        await stored.send([{"role": "tool", "tool_call_id": "1", "content": "x"}], "b")


def test_empty_messages_are_refused() -> None:
    """A request has to say something."""
    with pytest.raises(InvalidMessages, match="must not be empty"):
        read_incoming(b"[]")
