"""What an engine's answer says, whole or in events, in the forms that engines use."""

from typing import Any

import msgspec
import pytest

from gateway.errors import NodeBroke
from gateway.nodes import completion
from gateway.nodes.usage import Usage


def events(*chunks: dict[str, Any]) -> list[bytes]:
    """Chunks as a node sends them."""
    return [b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks] + [b"data: [DONE]\n\n"]


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk."""
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"id": "c", "created": 5, "model": "m", "choices": [choice]}


def piece(index: int, name: str | None = None, arguments: str | None = None, **own: Any) -> dict[str, Any]:
    """A fragment of a tool call."""
    return {"index": index, **own, "function": {"name": name, "arguments": arguments}}


COUNTED = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}


def test_stream_and_whole_say_the_same() -> None:
    """Text, finish, frame and usage."""
    streamed = completion.from_events(
        events(
            delta(role="assistant", content=""),
            delta(content="Grü"),
            delta(content="ß 🌊"),
            delta("stop"),
            {"id": "c", "choices": [], "usage": COUNTED},
        )
    )
    message = {"role": "assistant", "content": "Grüß 🌊"}
    body = {"id": "c", "created": 5, "model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    whole = completion.from_json(msgspec.json.encode({**body, "usage": COUNTED}))

    assert whole == streamed
    assert (9, 2, 8) == (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.cached)


def test_text_of_the_finishing_chunk_counts() -> None:
    """One engine (vLLM) puts the last token and the finish into one."""
    said = completion.from_events(events(delta(content="a"), delta("stop", content="b")))
    assert ("ab", "stop") == (said.message["content"], said.finish_reason)


def test_parallel_tool_calls_are_put_together() -> None:
    """Fragments of two calls, in turns; SGLang repeats null names."""
    said = completion.from_events(
        events(
            delta(tool_calls=[piece(0, id="a", type="function", name="f", arguments="")]),
            delta(tool_calls=[piece(1, id="b", name="g")]),
            delta(tool_calls=[piece(0, id=None, name=None, arguments='{"x"')]),
            delta(tool_calls=[piece(1, arguments="{}"), piece(0, arguments=":1}")]),
            delta("tool_calls"),
        )
    )

    assert [("a", "f", '{"x":1}'), ("b", "g", "{}")] == [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in said.message["tool_calls"]
    ]
    assert said.message["content"] is None


def test_other_choices_are_left_out() -> None:
    """Only the first one is ever remembered."""
    other = {"id": "c", "choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    said = completion.from_events(events(delta(content="yes"), other, delta("stop")))
    assert ("yes", "stop") == (said.message["content"], said.finish_reason)


def test_empty_answer_is_an_empty_text() -> None:
    """Not null, which would mean a tool call."""
    assert completion.from_events(events(delta("stop"))).message["content"] == ""


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"choices":[]}', b"\xff", b"[" * 100_000])
def test_what_is_no_completion_is_the_nodes_failure(body: bytes) -> None:
    """Cut off, of another kind, or without an answer in it."""
    with pytest.raises(NodeBroke):
        completion.from_json(body)


@pytest.mark.parametrize(
    "payload", [b'{"choices":[{"delta":{"content":"brok', b"7", b'{"choices":5}', b"\xff"]
)
def test_broken_chunk_is_the_nodes_failure(payload: bytes) -> None:
    """It would be remembered wrongly."""
    with pytest.raises(NodeBroke):
        completion.from_events([b"data: %b\n\n" % payload])


def test_usage_alone_is_read_where_it_is() -> None:
    """In a whole body, and in a blob of events whose others are broken."""
    blob = b'data: {"broken\n\ndata: {"choices":[],"usage":{"prompt_tokens":3}}\n\ndata: [DONE]\n\n'
    assert Usage(prompt_tokens=3) == completion.usage_in(blob)
    assert completion.usage_in(b"data: [DONE]\n\n") is None
    assert Usage(prompt_tokens=3) == completion.usage_of(b'{"usage":{"prompt_tokens":3}}')
    assert Usage(is_odd=True) == completion.usage_of(b'{"usage":{"prompt_tokens":"odd"}}')


def test_body_that_is_no_json_has_no_usage() -> None:
    """It is told apart from one that merely says nothing of its tokens."""
    with pytest.raises(NodeBroke):
        completion.usage_of(b'{"choices":[{"mess')


def test_cached_tokens_are_unknown_where_the_engine_is_silent() -> None:
    """Unknown is not zero."""
    assert Usage(prompt_tokens=9).cached is None
    assert completion.usage_of(b'{"usage":{"prompt_tokens_details":{"cached_tokens":0}}}').cached == 0


@pytest.mark.parametrize("cached", [-1, 10, 10**15])
def test_cached_tokens_that_cannot_be_are_unknown(cached: int) -> None:
    """More than the prompt has, or less than none: routing learns sizes and trust from this number."""
    counted = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": cached}}
    assert completion.usage_of(msgspec.json.encode({"usage": counted})).cached is None


def test_answer_that_the_engine_broke_off_is_none() -> None:
    """SGLang ends what was aborted there like an answer that is complete, and it must not be remembered."""
    message = {"role": "assistant", "content": "Once upon"}
    with pytest.raises(NodeBroke, match="broke its answer off"):
        completion.from_events(events(delta(content="Once upon"), delta("abort")))
    with pytest.raises(NodeBroke, match="broke its answer off"):
        completion.from_json(
            msgspec.json.encode({"choices": [{"message": message, "finish_reason": "abort"}]})
        )
