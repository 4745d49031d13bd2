"""Messages into turns, where no model answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.conversation import Turn
from history.errors import InvalidMessages
from history.grouping import Grouped, Said, continues, turns_of
from history.items import has_answer
from history.message import Message, message

CALL = {"id": "c", "type": "function", "function": {"name": "dice", "arguments": "{}"}}
USER = message({"role": "user", "content": "u"})
ASSISTANT = message({"role": "assistant", "content": "a"})
CALLING = message({"role": "assistant", "content": None, "tool_calls": [CALL]})
TOOL = message({"role": "tool", "tool_call_id": "c", "content": "6"})
SYSTEM = message({"role": "system", "content": "s"})

talk = st.lists(st.sampled_from([USER, USER, ASSISTANT, ASSISTANT, SYSTEM]), max_size=12)


def grouped(*messages: Message, head: Turn | None = None, **fields: Any) -> list[Grouped]:
    return list(turns_of((Said(one, **fields) for one in messages), head))


def answer(text: str) -> Message:
    return message({"role": "assistant", "content": text})


@given(talk)
def test_no_message_is_lost_or_moved(messages: list[Message]) -> None:
    """The turns, one after the other, are what was said."""
    groups = grouped(*messages)

    assert [one.json for one in messages] == [json for group in groups for json in group.turn.messages]
    assert b"".join(one.digest for one in messages) == b"".join(group.turn.digests for group in groups)


@given(talk)
def test_every_turn_but_the_last_has_an_answer(messages: list[Message]) -> None:
    """A question is never parted from its answer."""
    assert all(has_answer(group.turn) for group in grouped(*messages)[:-1])


@given(talk, st.integers(0, 12))
def test_it_does_not_matter_where_the_messages_are_parted(messages: list[Message], at: int) -> None:
    """What is added later goes on with the turn that has no answer yet, as if it had come at once."""
    first, rest = grouped(*messages[:at]), messages[at:]
    last = first[-1].turn if first else None
    head = last if rest and continues(last, rest[0]) else None
    kept = first[:-1] if head is not None else first
    again = [*kept, *grouped(*rest, head=head)]
    whole = grouped(*messages)
    if rest and rest[0].role != "user" and head is None and first:
        # Behind an answer, something that is no question begins a turn of its own.
        return

    assert [group.turn for group in whole] == [group.turn for group in again]


def test_a_tools_result_goes_on_with_its_call() -> None:
    """The turn waits for it, and is over with the answer behind it."""
    first, second = grouped(USER, CALLING), grouped(USER, CALLING, TOOL, ASSISTANT)

    assert ["open"] == [group.turn.status for group in first]
    assert ["complete"] == [group.turn.status for group in second]
    assert [second[0].turn] == [group.turn for group in grouped(TOOL, ASSISTANT, head=first[0].turn)]


@pytest.mark.parametrize("messages", [(TOOL,), (USER, TOOL), (USER, CALLING, TOOL, ASSISTANT, USER, TOOL)])
def test_a_tools_result_without_its_call_is_refused(messages: tuple[Message, ...]) -> None:
    """An engine would refuse every later prompt."""
    with pytest.raises(InvalidMessages, match="tool"):
        grouped(*messages)
    with pytest.raises(InvalidMessages, match="tool"):
        continues(grouped(USER, ASSISTANT)[0].turn, TOOL)


def test_other_answers_are_versions_of_the_turn_in_their_order() -> None:
    """Each with the question before it and nothing behind it, by when they were given."""
    said = [
        Said(USER, at=5.0),
        Said(answer("2"), at=6.0, before=(answer("0"), answer("1")), behind=(answer("3"),)),
    ]
    (group,) = turns_of(said)
    turns = sorted([group.turn, *group.versions], key=lambda turn: turn.at)

    assert group.turn == turns[2]
    assert [(USER.json, answer(text).json) for text in "0123"] == [turn.messages for turn in turns]
    assert 6.0 == pytest.approx(turns[-1].at, abs=1e-3)
