"""OpenAI's items as chat messages, and back: what was said survives the round trip."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.conversation_items import item_object
from history.conversation import Turn
from history.errors import InvalidMessages
from history.import_items import chat_messages, kept_message
from history.items import items_of
from history.message import message

Fields = dict[str, Any]
words = st.text(alphabet="abc \u4f60\u597d", max_size=8)
images = st.just(
    {"type": "input_image", "detail": "low", "image_url": "https://example.test/a.png", "file_id": None}
)
input_parts = st.lists(
    st.builds(lambda text: {"type": "input_text", "text": text}, words) | images, min_size=1, max_size=3
)
output_parts = st.lists(
    st.builds(
        lambda text: {"type": "output_text", "text": text, "annotations": [], "logprobs": []},
        words.filter(bool),
    ),
    min_size=1,
    max_size=2,
)
items = st.lists(
    st.one_of(
        st.builds(lambda parts: {"type": "message", "role": "user", "content": parts}, input_parts),
        st.builds(lambda parts: {"type": "message", "role": "assistant", "content": parts}, output_parts),
        st.builds(
            lambda name, arguments: {
                "type": "function_call",
                "call_id": f"call_{name}",
                "name": name,
                "arguments": arguments,
            },
            st.sampled_from("xyz"),
            words,
        ),
        st.builds(
            lambda output: {"type": "function_call_output", "call_id": "call_x", "output": output}, words
        ),
    ),
    max_size=8,
)


def kept(*given_items: Fields) -> Turn:
    messages = [kept_message(at, one) for at, one in chat_messages(enumerate(given_items))]
    return Turn(
        messages=tuple(one.json for one in messages), digests=b"".join(one.digest for one in messages)
    )


def shown(turn: Turn) -> list[Fields]:
    """The items that a client gets, without what the gateway adds to each."""
    return [
        {name: value for name, value in item_object(item).items() if name not in ("id", "status")}
        for item in items_of(turn, 0)
    ]


@given(items)
def test_items_come_back_as_they_were_sent(given_items: list[Fields]) -> None:
    """Messages, calls and results, in their order and with their parts."""
    assert given_items == shown(kept(*given_items))


@given(items)
def test_what_came_back_can_be_sent_again(given_items: list[Fields]) -> None:
    """A client that copies a conversation by its items gets the same dialogue."""
    turn = kept(*given_items)
    again = kept(*[item_object(item) for item in items_of(turn, 0)])

    assert turn == again


def test_plain_strings_are_messages() -> None:
    """As the SDK's easy form has them."""
    turn = kept({"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"})

    assert (
        message({"role": "user", "content": "hello"}).json,
        message({"role": "assistant", "content": "hi"}).json,
    ) == turn.messages


def test_calls_belong_to_what_was_said_before_them() -> None:
    """One message of the assistant, as the engine made it."""
    turn = kept(
        {"role": "user", "content": "roll twice"},
        {"role": "assistant", "content": "Rolling."},
        {"type": "function_call", "call_id": "a", "name": "dice", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "dice", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "6"},
    )

    assert 3 == len(turn.messages)
    assert ["message", "message", "function_call", "function_call", "function_call_output"] == [
        item.kind for item in items_of(turn, 0)
    ]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "items[0].type"),
        ({"type": "message", "role": "critic", "content": "a"}, "items[0].role"),
        ({"type": "message", "role": "user", "content": 5}, "items[0].content"),
        ({"type": "message", "role": "user", "content": []}, "items[0].content"),
        ({"type": "message", "role": "user", "content": ["a"]}, "items[0].content[0]"),
        ({"type": "message", "role": "user", "content": [{"type": "hologram"}]}, "items[0].content[0].type"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_text"}]},
            "items[0].content[0].text",
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            "items[0].content[0].image_url",
        ),
        ({"type": "function_call", "name": "dice", "arguments": "{}"}, "items[0].call_id"),
        ({"type": "function_call_output", "output": "6"}, "items[0].call_id"),
    ],
)
def test_what_cannot_be_kept_is_named(item: Fields, param: str) -> None:
    """By its place and its field."""
    with pytest.raises(InvalidMessages) as caught:
        kept(item)

    assert param == caught.value.param


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "role", "content", "text", "call_id", "name", "arguments", "output"]
                ),
                inner
                | st.sampled_from(
                    ["message", "user", "assistant", "function_call", "function_call_output", "input_text"]
                ),
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_is_sent_is_kept_or_refused(value: Any) -> None:
    """Never anything but a refusal that names the item."""
    item = value if isinstance(value, dict) else {"content": value}
    refused = ""
    try:
        kept(item)
    except InvalidMessages as error:
        refused = error.param

    assert not refused or refused.startswith("items[0]")
