"""Chat messages of an uploaded record as lines: OpenAI's (role, content) and ShareGPT's (from, value).
Pure.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from training.datasets.clean import Cleaner
from training.datasets.lines import Line, Role, line


class BadRecord(Exception):
    """It cannot be trained on; says why."""


class Chat(NamedTuple):
    """`counts`: which of the lines are answers that count."""

    lines: tuple[Line, ...]
    system: str | None
    counts: tuple[int, ...]


_SYSTEM = frozenset({"system", "developer"})
_ROLES: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "observation",
    "observation": "observation",
    "function_call": "function",
}


def chat_lines(messages: Any, cleaner: Cleaner, mends: Counter[str], *, is_openai: bool) -> Chat:
    """The lines of a dialogue. Raises `BadRecord`, which names the message."""
    if not isinstance(messages, list):
        raise BadRecord(f"the messages must be a list, not {type(messages).__name__}")
    rows: list[Line] = []
    counts: list[int] = []
    system: str | None = None
    for at, fields in enumerate(messages):
        where = f"message {at + 1}"
        if not isinstance(fields, dict):
            raise BadRecord(f"{where} must be an object")
        role, content = _role(fields, where), fields.get("content", fields.get("value"))
        if role in _SYSTEM:
            if at:
                raise BadRecord(f"{where}: a system message stands before all others, and only once")
            system = "" if content is None else _said(content, where, cleaner, mends, may_be_empty=True)
            mends["system_null"] += content is None
            continue
        one = _line(role, content, fields, where, cleaner, mends, is_openai=is_openai)
        if one.is_model and _weight(fields, where):
            counts.append(len(rows))
        rows.append(one)
    return Chat(tuple(rows), system, tuple(counts))


def _role(fields: Mapping[str, Any], where: str) -> str:
    role = fields.get("role", fields.get("from"))
    if role is None:
        raise BadRecord(f"{where} has no role")
    if not isinstance(role, str) or not (role in _ROLES or role in _SYSTEM or role == "function"):
        raise BadRecord(
            f"{where}: {str(role)[:40]!r} is no role; there are {', '.join(sorted(_ROLES))}, system"
        )
    return role


def _line(  # noqa: PLR0913 - all that a message is judged by
    role: str,
    content: Any,
    fields: Mapping[str, Any],
    where: str,
    cleaner: Cleaner,
    mends: Counter[str],
    *,
    is_openai: bool,
) -> Line:
    calls = fields.get("tool_calls") or ([fields["function_call"]] if fields.get("function_call") else [])
    if role == "assistant" and calls:
        mends["text_beside_a_tool_call_left_out"] += bool(content)
        return line("function", cleaner.calls(_calls(calls, where)).text)
    # OpenAI's older form has a function's result under this name, ShareGPT's a call.
    place: Role = ("observation" if is_openai else "function") if role == "function" else _ROLES[role]
    text = _said(content, where, cleaner, mends, may_be_empty=place == "observation")
    if place == "function":
        return line("function", cleaner.calls(_called(text, where)).text)
    return line(place, text)


def _said(content: Any, where: str, cleaner: Cleaner, mends: Counter[str], *, may_be_empty: bool) -> str:
    if isinstance(content, list):
        content = _joined(content, where)
        mends["text_parts_joined"] += 1
    if content is None:
        raise BadRecord(f"{where} has no content")
    if not isinstance(content, str):
        raise BadRecord(f"{where}: content must be a text, not {type(content).__name__}")
    clean = cleaner.text(content)
    if clean.misread:
        raise BadRecord(f"{where}: {clean.misread}")
    if not may_be_empty and not clean.text.strip():
        raise BadRecord(f"{where} is empty, and would be trained as an empty answer or question")
    return clean.text


def _joined(parts: list[Any], where: str) -> str:
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise BadRecord(
                f"{where}: a part of its content is no text ({str(kind)[:40]}); only text can be trained"
            )
        texts.append(part["text"])
    return "".join(texts)


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise BadRecord(f"{where}: tool_calls must be a list")
    found = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRecord(f"{where}: a tool call needs a function with a name")
        if not isinstance(function.get("arguments", ""), str | dict):
            raise BadRecord(f"{where}: a tool call's arguments must be JSON in a text, or an object")
        found.append(function)
    return found


def _called(text: str, where: str) -> list[dict[str, Any]]:
    """A call that stands as JSON in the text, as LLaMA-Factory reads it."""
    try:
        calls = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadRecord(f"{where}: a function call must be JSON with a name and arguments") from None
    return _calls(calls if isinstance(calls, list) else [calls], where)


def _weight(fields: Mapping[str, Any], where: str) -> bool:
    weight = fields.get("weight")
    if weight is None:
        return True
    if isinstance(weight, bool) or weight not in (0, 1):
        raise BadRecord(f"{where}: weight must be 0 or 1")
    return bool(weight)
