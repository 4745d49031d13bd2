"""OpenAI's items and chat messages, as chat messages that can be kept. Pure.

A `function_call` belongs to the assistant's message before it, as it did when a model made both; several in a
row are one message. Everything else is one message each.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from history.errors import InvalidMessages
from history.message import Message, message

Fields = dict[str, Any]
Numbered = tuple[int, Fields]
"""An item and its number: its place in a request, or its line in a file."""

_ROLES = frozenset({"user", "assistant", "system", "developer"})
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text"})
_CHAT_PARTS = frozenset({"image_url", "input_audio", "audio_url", "video_url", "file"})


def chat_messages(items: Iterable[Numbered]) -> Iterator[Numbered]:
    """The chat messages that the items stand for, each with the number of its first item.

    Raises `InvalidMessages` naming the item and the field.
    """
    held: Numbered | None = None
    for number, item in items:
        if item.get("type") == "function_call":
            held = held or (number, {"role": "assistant", "content": None})
            held[1].setdefault("tool_calls", []).append(_call(item, number))
            continue
        if held is not None:
            yield held
            held = None
        fields = _message(item, number)
        if fields["role"] == "assistant":
            held = (number, fields)
        else:
            yield number, fields
    if held is not None:
        yield held


def kept_message(number: int, fields: Fields) -> Message:
    """A message as it is kept. Raises `InvalidMessages` naming the item."""
    try:
        return message(fields)
    except InvalidMessages as error:
        field = error.param.partition(".")[2]
        raise _wrong(number, error.reason, field) from error


def _message(item: Fields, number: int) -> Fields:
    kind = item.get("type", "message")
    if kind == "function_call_output":
        return {
            "role": "tool",
            "tool_call_id": _text(item, "call_id", number),
            "content": _output(item.get("output"), number),
        }
    if kind != "message":
        raise _wrong(number, f"items of type {kind!r} cannot be kept here", "type")
    role = item.get("role")
    if role in ("tool", "function"):  # a chat message, not an item
        return {name: value for name, value in item.items() if name != "type"}
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(number, f"role must be one of {', '.join(sorted(_ROLES))}", "role")
    kept = {"role": role, "content": _content(item.get("content"), number)}
    for name in ("tool_calls", "function_call", "name"):
        if item.get(name):
            kept[name] = list(item[name]) if name == "tool_calls" else item[name]
    return kept


def _output(output: Any, number: int) -> Any:
    """A tool's result; an empty one is a result as well."""
    return _content(output, number, "output") if output is not None else ""


def _content(content: Any, number: int, field: str = "content") -> Any:
    """A string, or the parts as a chat message has them; one text alone is a string."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(number, f"{field} must be a string or an array of content parts", field)
    parts = [_part(part, number, f"{field}[{at}]") for at, part in enumerate(content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: Any, number: int, field: str) -> Fields:
    if not isinstance(part, dict):
        raise _wrong(number, "a content part is an object", field)
    kind = str(part.get("type"))
    if kind in _TEXTS:
        return {"type": "text", "text": _text(part, "text", number, f"{field}.")}
    if kind == "refusal":
        return {"type": "refusal", "refusal": _text(part, "refusal", number, f"{field}.")}
    if kind == "input_image":
        image = {"url": _text(part, "image_url", number, f"{field}.")}
        return {"type": "image_url", "image_url": image | _detail(part)}
    if kind == "input_file":
        file = {name: part[name] for name in ("file_data", "filename") if part.get(name)}
        if "file_data" not in file:
            raise _wrong(number, "a file is kept by its file_data only", f"{field}.file_data")
        return {"type": "file", "file": file}
    if kind in _CHAT_PARTS:
        return part
    raise _wrong(number, f"content parts of type {kind!r} cannot be kept here", f"{field}.type")


def _detail(part: Fields) -> Fields:
    return {"detail": part["detail"]} if part.get("detail") else {}


def _call(item: Fields, number: int) -> Fields:
    function = {"name": _text(item, "name", number), "arguments": _text(item, "arguments", number)}
    return {"id": _text(item, "call_id", number), "type": "function", "function": function}


def _text(fields: Fields, name: str, number: int, prefix: str = "") -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise _wrong(number, f"{name} must be a string", f"{prefix}{name}")
    return value


def _wrong(number: int, reason: str, field: str) -> InvalidMessages:
    return InvalidMessages(reason, param=f"items[{number}].{field}" if field else f"items[{number}]")
