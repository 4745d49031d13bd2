"""SillyTavern's chats: who said what, which answers were swiped away, and which lines make no sense."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.import_events import Event, Start, Whole, Wrong, grouped
from history.import_sillytavern import events, is_head, sent_at

HEAD = {
    "user_name": "Ada",
    "character_name": "Eli",
    "create_date": "2024-1-2 @03h 04m 05s 6ms",
    "chat_metadata": {},
}


def read(*lines: dict[str, Any] | str) -> list[Event]:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    return list(grouped(events((number, text.encode()) for number, text in enumerate(texts, start=1))))


def says(text: str, **fields: Any) -> dict[str, Any]:
    return {"name": "Eli", "is_user": False, "mes": text, **fields}


def asks(text: str, **fields: Any) -> dict[str, Any]:
    return {"name": "Ada", "is_user": True, "mes": text, **fields}


def spoken(event: Event) -> list[tuple[str, str]]:
    assert isinstance(event, Whole)
    messages = [json.loads(raw) for raw in event.group.turn.messages]
    return [(message["role"], message["content"]) for message in messages]


def test_a_chat_is_a_greeting_and_its_turns() -> None:
    """The character speaks first, as it mostly does."""
    start, greeting, turn = read(HEAD, says("Hello"), asks("Hi"), says("How are you?"))

    assert isinstance(start, Start)
    assert [("assistant", "Hello")] == spoken(greeting)
    assert [("user", "Hi"), ("assistant", "How are you?")] == spoken(turn)


def test_swipes_are_versions_of_their_turn() -> None:
    """In their order, and the one that is shown is the turn itself."""
    _, whole = read(HEAD, asks("Hi"), says("b", swipes=["a", "b", "c", "a"], swipe_id=1))
    assert isinstance(whole, Whole)
    turns = sorted([whole.group.turn, *whole.group.versions], key=lambda turn: turn.at)

    assert [("user", "Hi"), ("assistant", "b")] == spoken(whole)
    assert ["a", "b", "c"] == [json.loads(turn.messages[-1])["content"] for turn in turns]


@pytest.mark.parametrize(
    "fields", [{"swipes": "abc"}, {"swipes": [1, None]}, {"swipes": ["b"], "swipe_id": 9}]
)
def test_swipes_that_make_no_sense_are_no_swipes(fields: dict[str, Any]) -> None:
    """The message itself is what counts."""
    _, whole = read(HEAD, asks("Hi"), says("b", **fields))

    assert isinstance(whole, Whole)
    assert () == whole.group.versions


def test_what_is_hidden_there_is_hidden_here() -> None:
    """Notices of the program are no part of the dialogue; a narrator is."""
    events_of = read(
        HEAD,
        says("a notice", is_system=True),
        asks("Hi"),
        says("It rains.", extra={"type": "narrator"}),
        says("Oh!"),
    )

    assert [("user", "Hi"), ("user", "It rains."), ("assistant", "Oh!")] == spoken(events_of[1])
    assert 2 == len(events_of)


def test_no_name_is_kept() -> None:
    """Prompts of a character are the same for all of its users."""
    for event in read(HEAD, says("Hello"), asks("Hi"), says("How are you?"))[1:]:
        assert isinstance(event, Whole)
        assert not any(b"Ada" in message or b"Eli" in message for message in event.group.turn.messages)


def test_wrong_lines_are_named_and_the_others_read() -> None:
    """By their numbers in the file."""
    found = read(HEAD, asks("Hi"), "{", "[1]", {"is_user": True}, says("Hello"))

    assert [3, 4, 5] == [event.line for event in found if isinstance(event, Wrong)]
    assert [("user", "Hi"), ("assistant", "Hello")] == spoken(found[-1])


def test_a_chat_keeps_its_seed_while_it_goes_on() -> None:
    """Its metadata change with every message; its own mark and its date do not."""
    other = {**HEAD, "chat_metadata": {"timedWorldInfo": {"a": 1}}}
    branch = {**HEAD, "chat_metadata": {"main_chat": "the other"}}
    seeds = [one.seed for head in (HEAD, other, branch) for one in read(head) if isinstance(one, Start)]

    assert seeds[0] == seeds[1] != seeds[2]
    assert is_head(HEAD)
    assert not is_head(says("Hello"))


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("2024-01-02T03:04:05.000Z", 1704164645.0),
        ("2024-1-2 @03h 04m 05s 6ms", 1704164645.0),
        ("2024-01-02@03h04m05s", 1704164645.0),
        ("January 2, 2024 3:04am", 1704164640.0),
        (1704164645000, 1704164645.0),
        ("1704164645000", 1704164645.0),
        (1704164645, 1704164645.0),
        ("yesterday", 0.0),
        (None, 0.0),
        (True, 0.0),
        ("", 0.0),
        ("2024-99-99 @03h 04m 05s", 0.0),
    ],
)
def test_dates_of_all_its_versions_are_read(date: object, seconds: float) -> None:
    """A date that makes no sense is no date."""
    assert seconds == sent_at(date)


@given(st.none() | st.text() | st.integers() | st.floats(allow_nan=False) | st.lists(st.integers()))
def test_no_date_breaks_the_import(date: object) -> None:
    """Whatever stands there."""
    assert sent_at(date) >= 0 or isinstance(date, str)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["mes", "is_user", "is_system", "swipes", "swipe_id", "send_date", "extra", "chat_metadata"]
)


@given(st.lists(st.dictionaries(names, json_values, max_size=6), max_size=6))
def test_any_file_is_read_to_its_end(lines: list[dict[str, Any]]) -> None:
    """Every line is something that was said, a head, hidden, or wrong."""
    found = read(HEAD, *lines)

    assert isinstance(found[0], Start)
    assert all(isinstance(event, Start | Whole | Wrong) for event in found)
