"""One chat message: what is kept of it, and what the client could see of it.

A message is kept as compact JSON with its nulls dropped and, from users and tools, without a template's
control tokens, and that text goes into every later prompt unchanged. Two messages are *the same to the
client* when their visible forms agree: clients drop nulls and empty fields, join text parts and re-encode
tool arguments when they send a dialogue back.
"""

import contextlib
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec
import xxhash

from history.errors import InvalidMessages
from history.message_form import check_form
from history.neutral import neutral, neutral_row

DIGEST_SIZE = 16


class _Role(msgspec.Struct):
    role: str


_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_PERSONA_ROLES = frozenset({"system", "developer"})
_MAX_MESSAGES = 20_000
# Engines read control tokens inside a content as their own; a user or a tool must not be able to write them.
_SPOKEN_FROM_OUTSIDE = frozenset({"user", "tool", "function"})
# What an engine adds to an assistant message and a client neither sends back nor is asked to.
_NOT_SENT_BACK = frozenset({"reasoning", "reasoning_content", "refusal", "annotations", "audio"})

_decode_role = msgspec.json.Decoder(_Role).decode
_decode_list = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_any = msgspec.json.Decoder().decode
_canonical = msgspec.json.Encoder(order="deterministic").encode
_encode = msgspec.json.Encoder().encode


class Message(msgspec.Struct, frozen=True):
    """`json` is the text that goes into prompts; `digest` identifies what the client could see."""

    role: str
    json: bytes
    digest: bytes
    calls_tools: bool = False


def parse_messages(raw: bytes) -> tuple[Message, ...]:
    """The `messages` of a request. Raises `InvalidMessages` naming the first one that is malformed."""
    try:
        items = _decode_list(raw)
    except RecursionError as error:
        raise InvalidMessages("messages are nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMessages(f"messages must be an array of objects: {error}") from error
    if len(items) > _MAX_MESSAGES:
        raise InvalidMessages(f"at most {_MAX_MESSAGES} messages are accepted, got {len(items)}")
    return tuple(message(item, position) for position, item in enumerate(items))


def message(fields: dict[str, Any], position: int = 0) -> Message:
    """One message from its decoded fields; `position` is its index in the request, for errors."""
    role = fields.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        expected = ", ".join(sorted(_ROLES))
        raise InvalidMessages(f"role must be one of {expected}", param=f"messages[{position}].role")
    check_form(fields, position)
    return _kept(role, fields)


def _kept(role: str, fields: dict[str, Any]) -> Message:
    kept = {name: value for name, value in fields.items() if value is not None and value != []}
    if role in _SPOKEN_FROM_OUTSIDE:
        # What a client reads back has its control tokens broken up, and may be what it sends next time.
        kept["content"] = _neutral(kept.get("content"))
        fields = {**fields, "content": kept["content"]}
    return Message(
        role=role,
        json=_encode(kept),
        digest=visible_digest(fields),
        calls_tools=bool(fields.get("tool_calls") or fields.get("function_call")),
    )


def answer(fields: dict[str, Any]) -> Message:
    """An assistant message as the engine produced it, without what clients never send back.

    Thoughts are left out: templates of reasoning models drop them from earlier turns, so sending them
    back would change the prompt the node has in its cache.
    """
    kept = {name: value for name, value in fields.items() if name not in _NOT_SENT_BACK}
    kept["role"] = "assistant"
    if kept.get("content") is None and not (kept.get("tool_calls") or kept.get("function_call")):
        kept["content"] = ""
    # Whatever form its calls have: the client has seen them, and the engine will read its own again.
    return _kept("assistant", kept)


def text_of(json: bytes) -> str:
    """What a stored message says in words; parts that are no text are left out."""
    content = _decode_any(json).get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content if _is_text(part))
    return content or ""


def role_of(json: bytes) -> str:
    """Who says a stored message."""
    return _decode_role(json).role


def calls_tools(json: bytes) -> bool:
    """Whether a stored message calls a tool, so that its turn waits for the result."""
    fields = _decode_any(json)
    return bool(fields.get("tool_calls") or fields.get("function_call"))


def is_persona(candidate: Message) -> bool:
    """Whether a leading message sets who the character is."""
    return candidate.role in _PERSONA_ROLES


def digests(messages: Sequence[Message]) -> bytes:
    """The digests of a turn's messages, one after the other."""
    return b"".join(one.digest for one in messages)


def visible_digest(fields: dict[str, Any]) -> bytes:
    """16 bytes that are equal for two messages that a client cannot tell apart.

    xxh3 is no defence against somebody who wants a collision; here only the owner of a conversation
    could collide with their own messages.
    """
    return xxhash.xxh3_128_digest(_canonical(_visible(fields)))


def _visible(fields: dict[str, Any]) -> dict[str, Any]:
    seen = {
        "role": fields.get("role"),
        "content": _joined(fields.get("content")),
        "name": fields.get("name"),
        "tool_call_id": fields.get("tool_call_id"),
        "tool_calls": [_visible_call(call) for call in fields.get("tool_calls") or ()],
        "function_call": fields.get("function_call") and _visible_function(fields["function_call"]),
    }
    return {name: value for name, value in seen.items() if value not in (None, "", [], {})}


def _joined(content: Any) -> Any:
    if isinstance(content, list) and all(_is_text(part) for part in content):
        return "".join(part["text"] for part in content)
    return content


def _neutral(content: Any) -> Any:
    if isinstance(content, str):
        return neutral(content)
    parts: list[Any] = []
    for is_text, row in groupby(content, key=_is_text):
        found = list(row)
        # Some templates put text parts together as they are, so a token may be spread over several.
        texts = neutral_row([part["text"] for part in found]) if is_text else ()
        parts += (
            [{**part, "text": text} for part, text in zip(found, texts, strict=True)] if is_text else found
        )
    return parts


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _visible_call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    return {
        "id": call.get("id"),
        "type": call.get("type") or "function",
        "function": _visible_function(call.get("function")),
    }


def _visible_function(function: Any) -> Any:
    if not isinstance(function, dict):
        return function
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        # Models do write broken JSON; then the text itself is what the client saw.
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            arguments = _decode_any(arguments)
    return {"name": function.get("name"), "arguments": arguments}
