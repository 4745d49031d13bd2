"""What an engine's chat completion says, read once after the bytes have gone to the client."""

import contextlib
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.errors import NodeBroke
from gateway.nodes.sse import DONE, payloads
from gateway.nodes.usage import Usage, read_usage

_NO_USAGE = msgspec.Raw()


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _ChunkChoice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[_ChunkChoice] = []
    usage: msgspec.Raw = _NO_USAGE


class _Choice(msgspec.Struct):
    message: dict[str, Any] = {}
    finish_reason: str | None = None


class _Body(msgspec.Struct):
    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[_Choice] = []
    usage: msgspec.Raw = _NO_USAGE


class _UsageOnly(msgspec.Struct):
    usage: msgspec.Raw = _NO_USAGE


class Completion(msgspec.Struct, frozen=True):
    """The first choice's message and what surrounds it."""

    message: dict[str, Any]
    finish_reason: str
    id: str
    created: int
    model: str
    usage: Usage


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_usage = msgspec.json.Decoder(_UsageOnly).decode
_decode_body = msgspec.json.Decoder(_Body).decode


def from_json(body: bytes) -> Completion:
    """A completion that came as one body. Raises `NodeBroke` if it is none."""
    try:
        read = _decode_body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NodeBroke(f"the node's answer is no chat completion: {error}") from error
    if not read.choices:
        raise NodeBroke("the node's answer has no choices")
    choice = read.choices[0]
    _check_end(choice.finish_reason)
    return Completion(
        message=choice.message,
        finish_reason=choice.finish_reason or "",
        id=read.id,
        created=read.created,
        model=read.model,
        usage=read_usage(bytes(read.usage)),
    )


def from_events(blobs: Iterable[bytes]) -> Completion:
    """A completion that came as events. Raises `NodeBroke` on a chunk that is none."""
    content: list[str] = []
    calls: dict[int, _ToolCall] = {}
    finish_reason, usage, first = "", Usage(), _Chunk()
    for payload in payloads(blobs):
        if payload == DONE:
            continue
        chunk = _read_chunk(payload)
        first = first if first.id else chunk
        if _is_told(chunk.usage):
            usage = read_usage(bytes(chunk.usage))
        for choice in chunk.choices:
            if choice.index or choice.delta is None:
                continue
            finish_reason = choice.finish_reason or finish_reason
            content.append(choice.delta.content or "")
            for call in choice.delta.tool_calls or ():
                _merge(calls, call)
    _check_end(finish_reason)
    return Completion(
        message=_message("".join(content), [calls[index] for index in sorted(calls)]),
        finish_reason=finish_reason,
        id=first.id,
        created=first.created,
        model=first.model,
        usage=usage,
    )


def usage_of(body: bytes) -> Usage:
    """The usage of a whole body, zero where it says nothing of it. Raises `NodeBroke` if it is no JSON."""
    try:
        return read_usage(bytes(_decode_usage(body).usage))
    except msgspec.ValidationError:
        return Usage()  # no object, and somebody else's to refuse
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NodeBroke(f"the node's answer is no JSON: {error}") from error


def usage_in(blob: bytes) -> Usage | None:
    """The usage in these events, if any has one. They went to the client already: what is broken is left."""
    for payload in payloads((blob,)):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if payload != DONE and _is_told(usage := _decode_usage(payload).usage):
                return read_usage(bytes(usage))
    return None


def _is_told(usage: msgspec.Raw) -> bool:
    return bytes(usage) not in (b"", b"null")


def _check_end(finish_reason: str | None) -> None:
    """SGLang ends what was aborted there like an answer that is complete."""
    if finish_reason == "abort":
        raise NodeBroke("the engine broke its answer off")


def _read_chunk(payload: bytes) -> _Chunk:
    try:
        return _decode_chunk(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NodeBroke(f"the node sent a broken chunk: {error}") from error


def _merge(calls: dict[int, _ToolCall], piece: _ToolCall) -> None:
    """Tool calls come in fragments: the name first, then its arguments piece by piece."""
    call = calls.setdefault(piece.index, _ToolCall(index=piece.index, function=_Function("", "")))
    call.id = piece.id or call.id
    call.type = piece.type or call.type
    if piece.function is not None and call.function is not None:
        call.function.name = (call.function.name or "") + (piece.function.name or "")
        call.function.arguments = (call.function.arguments or "") + (piece.function.arguments or "")


def _message(content: str, calls: list[_ToolCall]) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
    if calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": call.type or "function", "function": msgspec.to_builtins(call.function)}
            for call in calls
        ]
    return fields
