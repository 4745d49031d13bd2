"""An answer given from what is stored: a retry of a request that was answered, or a greeting."""

from typing import Any

import msgspec

from gateway.ports import Headers, Reply
from gateway.request import ChatRequest
from history.conversation import Reply as AnswerFrame
from history.conversation import Turn


def send(turn: Turn, request: ChatRequest, reply: Reply, headers: Headers) -> None:
    """Send the stored answer of a turn in the shape that the request asks for."""
    send_message(turn.messages[-1], turn.reply, request, reply, headers)


def send_message(
    message: bytes, frame: AnswerFrame, request: ChatRequest, reply: Reply, headers: Headers
) -> None:
    """Send one assistant message as a chat completion, streamed or not."""
    fields: dict[str, Any] = {"role": "assistant", "content": None, **msgspec.json.decode(message)}
    if request.stream:
        body = b"".join(_events(fields, frame, wants_usage=request.wants_usage))
        kind = b"text/event-stream; charset=utf-8"
    else:
        body = msgspec.json.encode(_completion(fields, frame))
        kind = b"application/json"
    reply.start(200, ((b"content-type", kind), *headers), length=len(body))
    reply.write(body)
    reply.finish()


def _completion(fields: dict[str, Any], frame: AnswerFrame) -> dict[str, Any]:
    return {
        **_head(frame, "chat.completion"),
        "choices": [
            {
                "index": 0,
                "message": {"refusal": None, **fields},
                "logprobs": None,
                "finish_reason": frame.finish_reason or "stop",
            }
        ],
        "usage": _usage(frame),
    }


def _events(fields: dict[str, Any], frame: AnswerFrame, *, wants_usage: bool) -> list[bytes]:
    head = _head(frame, "chat.completion.chunk")
    delta = dict(fields)
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]},
        {
            **head,
            "choices": [
                {"index": 0, "delta": {}, "logprobs": None, "finish_reason": frame.finish_reason or "stop"}
            ],
        },
    ]
    if wants_usage:
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**head, "choices": [], "usage": _usage(frame)})
    return [b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks] + [b"data: [DONE]\n\n"]


def _head(frame: AnswerFrame, kind: str) -> dict[str, Any]:
    return {"id": frame.id, "object": kind, "created": frame.created, "model": frame.model}


def _usage(frame: AnswerFrame) -> dict[str, Any]:
    return {
        "prompt_tokens": frame.prompt_tokens,
        "completion_tokens": frame.completion_tokens,
        "total_tokens": frame.prompt_tokens + frame.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": frame.cached_tokens},
    }
