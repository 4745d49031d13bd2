"""A conversation in words, for somebody who looks at it on a terminal."""

import time
from collections.abc import Iterator

from history.conversation import Conversation, ConversationKey, Turn
from history.errors import ConversationNotFound
from history.items import items_of
from history.message import text_of
from history.ports import ConversationStore

_LONGEST = 400


async def described(store: ConversationStore, tenant: str, conversation_id: str, turns: int) -> list[str]:
    """What is kept of a conversation, and its last turns. Raises `ConversationNotFound`."""
    key = ConversationKey(tenant, conversation_id)
    conversation = await store.load(key)
    if conversation is None:
        raise ConversationNotFound(conversation_id)
    count = conversation.turn_count
    last = await store.read(key, max(0, count - turns), count) if turns else ()
    lines = [f"{name:<12}{value}" for name, value in _facts(conversation_id, conversation)]
    for index, turn in enumerate(last, start=count - len(last)):
        lines += _turn(turn, index)
    return lines


def _facts(conversation_id: str, conversation: Conversation) -> Iterator[tuple[str, str]]:
    memory = conversation.memories[-1] if conversation.memories else None
    yield "id", conversation_id
    yield "user", conversation.user or "-"
    yield "character", conversation.character or "-"
    yield "created", _when(conversation.created_at)
    yield "last turn", _when(conversation.updated_at)
    yield "turns", f"{conversation.turn_count}, {conversation.cut} of them out of the window"
    yield "branches", str(conversation.branches)
    yield "memory", f"of the first {memory.covers_to} turns" if memory else "-"
    yield "metadata", conversation.metadata.decode() or "-"
    if conversation.persona:
        yield "persona", _short(text_of(conversation.persona))


def _turn(turn: Turn, index: int) -> Iterator[str]:
    yield ""
    yield f"turn {index}, {_when(turn.at)}" + ("" if turn.status == "complete" else f", {turn.status}")
    for item in items_of(turn, index):
        if item.call is not None:
            function = item.call.get("function") or {}
            yield f"  {item.id}  calls {function.get('name')}({_short(str(function.get('arguments')))})"
        else:
            text = _short(text_of(turn.messages[item.at_message]))
            yield f"  {item.id}  {item.message.get('role')}: {text}"


def _when(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s)) if unix_s else "at a time unknown"


def _short(text: str) -> str:
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
