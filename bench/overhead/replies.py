"""The bytes that the instant upstream answers with, rendered once so that serving them costs almost nothing.

A streamed reply is a role event, then CONTENT_CHUNKS content events CHUNK_INTERVAL_S apart, then the finish
event, usage when it was asked for, and `[DONE]` in one last write: what vLLM sends for as many tokens.
"""

import re
from dataclasses import dataclass

import msgspec

CONTENT_CHUNKS = 64
CHUNK_INTERVAL_S = 0.010
BYTES_PER_TOKEN = 4

_STREAM = re.compile(rb'"stream"\s*:\s*true')
_INCLUDE_USAGE = re.compile(rb'"include_usage"\s*:\s*true')


@dataclass(frozen=True, slots=True)
class Replies:
    """Everything constant in an answer for one model; the usage numbers alone depend on the request."""

    json_head: bytes
    stream_opening: bytes
    stream_contents: tuple[bytes, ...]
    stream_finish: bytes
    usage_event_head: bytes


def wants_stream(body: bytes) -> bool:
    """Whether the request asks for a stream. A message's text cannot match: its quotes are escaped."""
    return _STREAM.search(body) is not None


def wants_usage(body: bytes) -> bool:
    """Whether the request asks for the usage event before `[DONE]`."""
    return _INCLUDE_USAGE.search(body) is not None


def http_chunk(payload: bytes) -> bytes:
    """One chunk of HTTP's chunked transfer coding."""
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def http_answer(status: bytes, payload: bytes, content_type: bytes = b"application/json") -> bytes:
    """A whole answer with its length, on a connection that stays open."""
    return b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        content_type,
        len(payload),
        payload,
    )


def usage(prompt_bytes: int) -> bytes:
    """Usage of a prompt of that many bytes, most of it reported as cached, as a warm node would."""
    prompt = max(1, prompt_bytes // BYTES_PER_TOKEN)
    return (
        b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}'
        % (prompt, prompt + CONTENT_CHUNKS, CONTENT_CHUNKS, prompt * 15 // 16)
    )


def render(model: str) -> Replies:
    """Render every constant part of the answers of a node that serves `model`."""
    words = [f" word{index}" for index in range(CONTENT_CHUNKS)]
    return Replies(
        json_head=_json_head(model, "".join(words)),
        stream_opening=b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        b"transfer-encoding: chunked\r\n\r\n" + _event(model, {"role": "assistant", "content": ""}, None),
        stream_contents=tuple(_event(model, {"content": word}, None) for word in words),
        stream_finish=_event(model, {}, "stop"),
        usage_event_head=b"data: "
        + msgspec.json.encode(_envelope(model, "chat.completion.chunk") | {"choices": []})[:-1]
        + b',"usage":',
    )


def json_answer(replies: Replies, prompt_bytes: int) -> bytes:
    """The whole answer to a request without streaming."""
    return http_answer(b"200 OK", replies.json_head + usage(prompt_bytes) + b"}")


def stream_ending(replies: Replies, prompt_bytes: int, *, with_usage: bool) -> bytes:
    """The last write of a streamed answer: finish, usage if asked for, `[DONE]`, end of the body."""
    ending = replies.stream_finish
    if with_usage:
        ending += http_chunk(replies.usage_event_head + usage(prompt_bytes) + b"}\n\n")
    return ending + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _envelope(model: str, kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-overhead", "object": kind, "created": 1700000000, "model": model}


def _event(model: str, delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    event = _envelope(model, "chat.completion.chunk") | {"choices": [choice]}
    return http_chunk(b"data: " + msgspec.json.encode(event) + b"\n\n")


def _json_head(model: str, text: str) -> bytes:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    answer = _envelope(model, "chat.completion") | {"choices": [choice]}
    return msgspec.json.encode(answer)[:-1] + b',"usage":'
