"""What a client lists and points at: items with ids that stay while their turn stands, and no longer."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.conversation import Lease, Turn
from history.item_pages import behind
from history.items import (
    Place,
    fresh_mark,
    has_answer,
    ids_of,
    items_of,
    persona_item,
    question_of,
    read_id,
    status_of,
    up_to,
)
from history.message import DIGEST_SIZE, message

CALL = {"id": "call_1", "type": "function", "function": {"name": "dice", "arguments": "{}"}}

calls = st.lists(
    st.builds(
        lambda name, arguments: {
            "id": f"call_{name}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        st.sampled_from("xyz"),
        st.text(max_size=4),
    ),
    max_size=3,
)
texts = st.text(max_size=5)
said = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, texts),
    st.builds(
        lambda text, made: {"role": "assistant", "content": text, "tool_calls": made},
        texts | st.none(),
        calls,
    ),
    st.builds(lambda text: {"role": "tool", "tool_call_id": "call_x", "content": text}, texts),
)
turns = st.builds(
    lambda messages, mark, status: turn_of(*messages, mark=mark, status=status),
    st.lists(said, max_size=5),
    st.binary(max_size=8),
    st.sampled_from(["complete", "open", "incomplete"]),
)


def turn_of(*messages: dict[str, Any], **fields: Any) -> Turn:
    kept = [message(one) for one in messages]
    return Turn(
        messages=tuple(one.json for one in kept), digests=b"".join(one.digest for one in kept), **fields
    )


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, *made: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"tool_calls": list(made)} if made else {})}


TOOL = {"role": "tool", "tool_call_id": "call_1", "content": "6"}


@given(turns, st.integers(0, 10**9))
def test_an_id_says_where_its_item_stands(turn: Turn, index: int) -> None:
    """From the id alone, so that an item is found in one read."""
    items = items_of(turn, index)

    assert [Place(index, at) for at in range(len(items))] == [item.place for item in items]
    assert [item.place for item in items] == [read_id(item.id) for item in items]
    assert len({item.id for item in items}) == len(items)


@given(st.lists(turns, min_size=2, max_size=6), st.integers(0, 3))
def test_ids_never_collide_across_branches(branches: list[Turn], index: int) -> None:
    """Turns that were written apart share no id, at one place or two, also where they say the same."""
    signed = [
        msgspec.structs.replace(turn, mark=fresh_mark(Lease("w", fence, 1), 0))
        for fence, turn in enumerate(branches)
    ]
    ids = [item.id for turn in signed for at in (index, index + 1) for item in items_of(turn, at)]

    assert len(ids) == len(set(ids))


@given(st.lists(said, min_size=1, max_size=6), st.data())
def test_ids_stay_while_the_turn_goes_on(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    """A turn that waits for a tool's result is written again when it comes; what was listed stays."""
    count = data.draw(st.integers(1, len(messages)))
    before = items_of(turn_of(*messages[:count], mark=b"m", status="open", at=1.0), 7)
    after = items_of(turn_of(*messages, mark=b"m", at=2.0), 7)

    assert [item.id for item in before] == [item.id for item in after[: len(before)]]


@given(st.text())
def test_what_is_no_id_names_no_place(text: str) -> None:
    """Whatever a client sends."""
    place = read_id(text)

    assert place is None or text.startswith(("msg_", "fc_", "fco_"))


def test_marks_differ_by_writer_write_and_place() -> None:
    """Whatever is written is told from everything else."""
    leases = [Lease("a", 1, 1), Lease("a", 2, 1), Lease("b", 1, 1)]

    assert len({fresh_mark(lease, position) for lease in leases for position in (0, 1)}) == 6


def test_a_message_with_tool_calls_is_an_item_for_each() -> None:
    """And one for what was said beside them, if anything was."""
    turn = turn_of(user("roll"), assistant("Rolling", CALL, CALL), TOOL, assistant(None, CALL))
    kinds = [(item.kind, item.at_message) for item in items_of(turn, 0)]

    assert [
        ("message", 0),
        ("message", 1),
        ("function_call", 1),
        ("function_call", 1),
        ("function_call_output", 2),
        ("function_call", 3),
    ] == kinds


def test_an_answer_that_was_broken_off_is_incomplete() -> None:
    """It alone, not the question before it."""
    items = items_of(turn_of(user("a"), assistant("b"), status="incomplete"), 0)

    assert [False, True] == [item.is_incomplete for item in items]


def test_the_persona_is_an_item_of_its_epoch() -> None:
    """Another persona is another item, and so is the same one in a later epoch."""
    ids = {
        persona_item(b'{"role":"system","content":"%b"}' % text, epoch).id
        for text in (b"a", b"b")
        for epoch in (0, 1)
    }

    assert len(ids) == 4
    assert {Place(-1, 0)} == {read_id(one) for one in ids}


@given(turns)
def test_a_question_is_what_stands_before_the_first_answer(turn: Turn) -> None:
    """Messages and digests alike."""
    messages, digests = question_of(turn)

    assert turn.messages[: len(messages)] == messages
    assert len(messages) * DIGEST_SIZE == len(digests)
    assert has_answer(turn) is (len(messages) < len(turn.messages))


def test_a_turn_ends_behind_an_item() -> None:
    """What comes later is left out, and the turn waits again for what it waited for then."""
    turn = turn_of(user("roll"), assistant(None, CALL), TOOL, assistant("six"), mark=b"m", at=3.0)
    question, call, result, answer = items_of(turn, 0)

    assert turn == up_to(turn, answer)
    assert ("incomplete", 1) == (up_to(turn, question).status, len(up_to(turn, question).messages))
    assert ("open", 2) == (up_to(turn, call).status, len(up_to(turn, call).messages))
    assert ("incomplete", 3) == (up_to(turn, result).status, len(up_to(turn, result).messages))
    assert question.id == items_of(up_to(turn, question), 0)[0].id


def test_status_of_nothing_is_incomplete() -> None:
    """A turn without a message waits for everything."""
    assert status_of(()) == "incomplete"


@given(st.lists(turns, max_size=6), st.data())
def test_what_lies_behind_an_item_and_before_it_is_everything_else(
    dialogue: list[Turn], data: st.DataObject
) -> None:
    """Forwards and backwards from any item, each other one is met exactly once."""
    items = [item for at, turn in enumerate(dialogue) for item in items_of(turn, at)]
    place = data.draw(st.sampled_from(items)).place if items else Place(0, 0)
    later = behind(items, place, newest_first=False)
    earlier = behind(items, place, newest_first=True)

    assert items == [*earlier[::-1], *[one for one in items if one.place == place], *later]
    assert items[::-1] == behind(items, None, newest_first=True)


@pytest.mark.parametrize(
    "said",
    [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}],
        [{"role": "assistant", "content": "b"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": 'a "tool_calls": text'}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [CALL]}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [CALL]}],
    ],
)
def test_ids_at_once_are_those_of_the_items(said: list[dict[str, Any]]) -> None:
    """At least every answer's, and none that no item has."""
    made = [message(one) for one in said]
    turn = Turn(tuple(one.json for one in made), b"".join(one.digest for one in made), mark=b"m")
    items = items_of(turn, 7)
    ids = set(ids_of(turn, 7))
    assert (
        {item.id for item in items if item.message["role"] == "assistant"}
        <= ids
        <= {item.id for item in items}
    )
