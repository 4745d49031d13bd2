"""Files of items and messages: one dialogue to a file, or one to a line."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history import import_lines
from history.import_events import Event, Line, Start, Whole, Wrong, grouped

CALL = {"type": "function_call", "call_id": "c", "name": "dice", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "6"}


def lines(*values: Any) -> Iterator[Line]:
    for number, value in enumerate(values, start=1):
        yield number, (value if isinstance(value, str) else json.dumps(value)).encode()


def items(*values: Any) -> list[Event]:
    return list(grouped(import_lines.items(lines(*values), lambda: b"seed")))


def dialogues(*values: Any) -> list[Event]:
    return list(grouped(import_lines.dialogues(lines(*values))))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def texts(found: list[Event]) -> list[list[Any]]:
    return [
        [json.loads(raw).get("content") for raw in event.group.turn.messages]
        for event in found
        if isinstance(event, Whole)
    ]


def test_a_file_of_items_is_one_dialogue() -> None:
    """Calls, results and answers are one turn."""
    start, turn, other = items(
        user("roll"), CALL, RESULT, assistant("six"), user("thanks"), assistant("sure")
    )

    assert isinstance(start, Start)
    assert b"seed" == start.seed
    assert [["roll", None, "6", "six"], ["thanks", "sure"]] == texts([turn, other])


@pytest.mark.parametrize("name", ["messages", "items"])
def test_each_line_can_be_a_dialogue(name: str) -> None:
    """With seeds of their own, which do not depend on where they stand."""
    first, second = {name: [user("a"), assistant("b")]}, {name: [user("c"), assistant("d")]}
    there, back = dialogues(first, second), dialogues(second, first)
    seeds = [[event.seed for event in found if isinstance(event, Start)] for found in (there, back)]

    assert [["a", "b"], ["c", "d"]] == texts(there)
    assert seeds[0] == seeds[1][::-1]
    assert 2 == len(set(seeds[0]))


@pytest.mark.parametrize("read", [items, lambda *values: dialogues({"messages": list(values)})])
def test_a_leading_system_message_is_the_persona(read: Callable[..., list[Event]]) -> None:
    """It is no turn."""
    start, *turns = read({"role": "system", "content": "You are Eli."}, user("a"), assistant("b"))

    assert isinstance(start, Start)
    assert "You are Eli." == json.loads(start.beginning.persona)["content"]
    assert [["a", "b"]] == texts(turns)


def test_wrong_lines_are_named() -> None:
    """Broken JSON, unknown types, results without calls; the lines between them are read."""
    found = items(user("a"), "{", {"type": "reasoning"}, RESULT, assistant("b"), [1], user("c"))

    assert [2, 3, 4, 6] == sorted(event.line for event in found if isinstance(event, Wrong))
    assert [["a", "b"], ["c"]] == texts(found)


def test_a_wrong_dialogue_does_not_end_the_others() -> None:
    """It is named by its line."""
    good = {"messages": [user("a"), assistant("b")]}
    found = dialogues(
        good, {"messages": [{"role": "pirate", "content": "a"}]}, {"messages": [5]}, {"a": 1}, good
    )

    assert [2, 3, 4] == [event.line for event in found if isinstance(event, Wrong)]
    assert [["a", "b"], ["a", "b"]] == texts(found)


talk = st.lists(
    st.sampled_from([user("u"), assistant("a"), CALL, RESULT, "{", {"role": 5}, user("v")]), max_size=12
)


@given(talk)
def test_every_line_is_read_or_named(values: list[Any]) -> None:
    """None is passed over in silence."""
    found = items(*values)
    wrong = [event.line for event in found if isinstance(event, Wrong)]
    kept = [
        json.loads(raw) for event in found if isinstance(event, Whole) for raw in event.group.turn.messages
    ]
    said = sum(max(1, len(message.get("tool_calls", ())) + bool(message.get("content"))) for message in kept)

    assert len(values) == len(wrong) + said
    assert len(wrong) == len(set(wrong))
