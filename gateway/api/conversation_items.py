"""How stored conversations look as OpenAI's objects. Pure.

Fields that the published schema requires are always there; those that are ours stand beside them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.conversations import Page
from history.conversation import Conversation, Turn
from history.items import Item, items_of
from history.siblings import Version

Fields = dict[str, Any]

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def conversation_object(conversation_id: str, conversation: Conversation) -> Fields:
    """A conversation."""
    return {
        "id": conversation_id,
        "object": "conversation",
        "created_at": int(conversation.created_at),
        "metadata": _decode(conversation.metadata) if conversation.metadata else {},
    }


def item_list(page: Page) -> Fields:
    """A page of items."""
    data = [item_object(item) for item in page.items]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": page.has_more,
    }


def item_object(item: Item) -> Fields:
    """One item."""
    status = "incomplete" if item.is_incomplete else "completed"
    if item.kind == "function_call":
        return _function_call(item, status)
    if item.kind == "function_call_output":
        call_id = item.message.get("tool_call_id") or item.message.get("name")
        return {
            "id": item.id,
            "type": "function_call_output",
            "status": status,
            "call_id": call_id or "",
            "output": _output(item.message.get("content")),
        }
    role = item.message["role"]
    parts = _parts(item.message.get("content"))
    return {
        "id": item.id,
        "type": "message",
        "status": status,
        "role": role,
        "content": [_part(part, said=role == "assistant") for part in parts],
    }


def sibling_list(index: int, versions: Sequence[Version]) -> Fields:
    """The versions of a turn."""
    return {
        "object": "list",
        "turn": index,
        "data": [_sibling(index, version) for version in versions],
        "has_more": False,
    }


def _sibling(index: int, version: Version) -> Fields:
    turn: Turn = version.turn
    return {
        "object": "conversation.sibling",
        "sibling": version.number,
        "active": not version.branch,
        "created_at": int(turn.at),
        "model": turn.reply.model or None,
        "turns_behind": version.following,
        "items": [item_object(item) for item in items_of(turn, index)],
    }


def _function_call(item: Item, status: str) -> Fields:
    call: Fields = item.call or {}
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    return {
        "id": item.id,
        "type": "function_call",
        "status": status,
        "call_id": call.get("id") or "",
        "name": function.get("name") or "",
        "arguments": arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode(),
    }


def _output(content: Any) -> Any:
    if isinstance(content, list):
        return [_part(part, said=False) for part in content]
    return content or ""


def _parts(content: Any) -> list[Fields]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content or ""}]


def _part(part: Fields, *, said: bool) -> Fields:
    """A content part as items have it; `said`: the assistant said it."""
    kind = part.get("type")
    if kind == "text":
        return _text(part.get("text") or "", said=said)
    if kind == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal") or ""}
    if kind == "image_url":
        image = part.get("image_url")
        image = image if isinstance(image, dict) else {"url": image}
        return {
            "type": "input_image",
            "detail": image.get("detail") or "auto",
            "image_url": image.get("url"),
            "file_id": None,
        }
    if kind == "file" and isinstance(part.get("file"), dict):
        return {"type": "input_file", **part["file"]}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        audio = part["input_audio"]
        return {
            "type": "input_file",
            "file_data": audio.get("data"),
            "filename": f"audio.{audio.get('format')}",
        }
    return part


def _text(text: str, *, said: bool) -> Fields:
    if said:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}
