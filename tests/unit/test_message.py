"""One message: what is kept of it and what the client could see of it."""

from typing import Any

import msgspec
import pytest

from history.errors import InvalidMessages
from history.message import answer, message, parse_messages, visible_digest


@pytest.mark.parametrize(
    ("stored", "sent_back"),
    [
        ({"content": "hi"}, {"content": "hi", "refusal": None, "tool_calls": []}),
        ({"content": "hi"}, {"content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}),
        ({"content": ""}, {"content": None}),
        (
            {
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1,"b":2}'}}
                ]
            },
            {
                "content": "",
                "tool_calls": [{"id": "1", "function": {"arguments": '{ "b": 2, "a": 1 }', "name": "f"}}],
            },
        ),
    ],
)
def test_what_a_client_cannot_tell_apart_is_the_same(
    stored: dict[str, Any], sent_back: dict[str, Any]
) -> None:
    """Nulls and empty fields, joined text parts and re-encoded tool arguments make no difference."""
    assert visible_digest({"role": "assistant", **stored}) == visible_digest(
        {"role": "assistant", **sent_back}
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}),
        ({"role": "user", "content": "hi"}, {"role": "user", "content": "hi "}),
        ({"role": "user", "content": "hi"}, {"role": "user", "content": "hi", "name": "ada"}),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "b"}}]},
        ),
        (
            {"role": "tool", "content": "x", "tool_call_id": "1"},
            {"role": "tool", "content": "x", "tool_call_id": "2"},
        ),
    ],
)
def test_what_a_client_can_tell_apart_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Role, exact text, name, media and call ids all count."""
    assert visible_digest(one) != visible_digest(other)


def test_answer_keeps_the_exact_text_and_drops_thoughts() -> None:
    """What goes into later prompts is what the client saw; reasoning is not sent back."""
    said = {
        "role": "assistant",
        "content": " Ja \u2603\n",
        "reasoning_content": "hm",
        "refusal": None,
        "tool_calls": [],
    }

    kept = msgspec.json.decode(answer(said).json)

    assert kept == {"role": "assistant", "content": " Ja \u2603\n"}


def test_empty_answer_is_a_message_too() -> None:
    """A model may say nothing; the turn still has its answer."""
    assert msgspec.json.decode(answer({"content": None}).json) == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"{}", "messages"),
        (b"[1]", "messages"),
        (b'["\xff"]', "messages"),
        (b"[" * 3000, "messages"),
        (b'[{"role":"user"}]', "messages[0].content"),
        (b'[{"role":"user","content":"a"},{"role":"nobody","content":"a"}]', "messages[1].role"),
        (b'[{"content":"a"}]', "messages[0].role"),
        (b'[{"role":"user","content":7}]', "messages[0].content"),
        (b'[{"role":"user","content":["a"]}]', "messages[0].content"),
        (b'[{"role":"user","content":[]}]', "messages[0].content"),
    ],
)
def test_malformed_messages_name_what_is_wrong(raw: bytes, param: str) -> None:
    """The error's `param` is the path of the first message that cannot be."""
    with pytest.raises(InvalidMessages) as caught:
        parse_messages(raw)

    assert param == caught.value.param


def test_message_is_kept_in_the_order_it_was_written() -> None:
    """Some templates print fields as they come; the bytes of a prompt must not depend on our taste."""
    assert message({"content": "a", "role": "user", "name": None}).json == b'{"content":"a","role":"user"}'


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_calls": "x"}, "messages[0].tool_calls"),
        ({"tool_calls": 5}, "messages[0].tool_calls"),
        ({"tool_calls": [5]}, "messages[0].tool_calls[0]"),
        ({"tool_calls": [{"id": "a"}]}, "messages[0].tool_calls[0].function"),
        ({"tool_calls": [{"id": 1, "function": {"name": "f"}}]}, "messages[0].tool_calls[0]"),
        (
            {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"function_call": "f"}, "messages[0].function_call"),
        ({"content": [{"type": "text", "text": 5}]}, "messages[0].content[0].text"),
        ({"content": [{"type": 5}]}, "messages[0].content[0].type"),
        ({"content": [{"text": "x"}]}, "messages[0].content[0].type"),
        ({"content": "x", "name": 5}, "messages[0].name"),
    ],
)
def test_what_an_engine_would_refuse_later_is_refused_now(fields: dict[str, Any], param: str) -> None:
    """A greeting is stored without an engine having seen it: it must not break all later turns."""
    with pytest.raises(InvalidMessages) as refused:
        message({"role": "assistant", **fields})

    assert refused.value.param == param
