"""The items of a turn: what a client lists, points at and rates, with ids that stay while it stands. Pure.

An id says where the item stands and of what it is made: its turn's mark and everything said in that turn up
to it. So no two turns that ever stood at one place share an id, and a turn that waits for a tool's result
keeps the ids it has when the result comes.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import xxhash

from history.conversation import Lease, Turn
from history.kept_tail import said_messages, tailed_within
from history.message import DIGEST_SIZE

Kind = Literal["message", "function_call", "function_call_output"]

PERSONA_TURN = -1
"""The persona stands before the first turn."""

_PREFIXES: dict[Kind, str] = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
_ID = re.compile(r"(?:msg|fc|fco)_([0-9a-f]{1,12})_([0-9a-f]{1,6})_[0-9a-f]{16}")
_PERSONA_ID = re.compile(r"msg_persona_[0-9a-f]{16}")
_PLAIN_QUESTION, _PLAIN_ANSWER = b'{"role":"user",', b'{"role":"assistant","content":"'
_HAS_MORE = re.compile(rb'"content":""|"(?:tool_calls|function_call)":')
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Place(NamedTuple):
    """Where an item stands: its turn, and its number in it; ordered as they were said."""

    turn: int
    item: int


class Item(msgspec.Struct, frozen=True):
    """One item. `message` is the chat message it comes from, `call` its tool call if it is one of these."""

    id: str
    place: Place
    kind: Kind
    message: dict[str, Any]
    at_message: int
    """Which message of the turn it comes from."""
    call: dict[str, Any] | None = None
    is_incomplete: bool = False
    """The answer was broken off."""


def fresh_mark(lease: Lease, position: int) -> bytes:
    """What tells a turn that is written now from every other; `position`: its number in this write."""
    written = f"{lease.owner}\0{lease.fence}\0{position}"
    return xxhash.xxh3_64_digest(written.encode("utf-8", "surrogatepass"))


def items_of(turn: Turn, index: int) -> tuple[Item, ...]:
    """The items of turn `index`, in order."""
    found: list[Item] = []
    for at, raw in enumerate(said_messages(turn.messages, turn.tailed)):
        message = _decode(raw)
        is_last = at == len(turn.messages) - 1
        broken = is_last and turn.status == "incomplete" and message.get("role") == "assistant"
        for kind, call in _kinds(message):
            place = Place(index, len(found))
            found.append(Item(_id_of(turn, at, place, kind), place, kind, message, at, call, broken))
    return tuple(found)


def ids_of(turn: Turn, index: int) -> Iterator[str]:
    """The ids of turn `index` that may be rated: of the plainest turns only the answer's, at once."""
    messages = turn.messages
    is_plain = len(messages) == 2 and turn.tailed is None and messages[0].startswith(_PLAIN_QUESTION)
    if is_plain and messages[1].startswith(_PLAIN_ANSWER) and not _HAS_MORE.search(messages[1]):
        yield _id_of(turn, 1, Place(index, 1), "message")
    else:
        yield from (item.id for item in items_of(turn, index))


def persona_item(persona: bytes, epoch: int) -> Item:
    """The system message as an item, before all others."""
    digest = xxhash.xxh3_64_hexdigest(b"%d\0%b" % (epoch, persona))
    return Item(f"msg_persona_{digest}", Place(PERSONA_TURN, 0), "message", _decode(persona), 0)


def read_id(item_id: str) -> Place | None:
    """Where an item with this id would stand; None if this is no id of an item."""
    if _PERSONA_ID.fullmatch(item_id):
        return Place(PERSONA_TURN, 0)
    found = _ID.fullmatch(item_id)
    return Place(int(found[1], 16), int(found[2], 16)) if found else None


def question_of(turn: Turn) -> tuple[tuple[bytes, ...], bytes]:
    """The messages before the first answer, and their digests."""
    answers = (at for at, raw in enumerate(turn.messages) if _decode(raw).get("role") == "assistant")
    end = next(answers, len(turn.messages))
    return turn.messages[:end], turn.digests[: end * DIGEST_SIZE]


def has_answer(turn: Turn) -> bool:
    """Whether a model, or somebody in its place, has said something in it."""
    return len(question_of(turn)[0]) < len(turn.messages)


def up_to(turn: Turn, item: Item) -> Turn:
    """The turn as it was when this item had been said; the tool calls of one message stay together."""
    count = item.at_message + 1
    if count == len(turn.messages):
        return turn
    head = Turn(
        messages=turn.messages[:count],
        digests=turn.digests[: count * DIGEST_SIZE],
        at=turn.at,
        mark=turn.mark,
        tailed=tailed_within(turn.tailed, count),
    )
    return msgspec.structs.replace(head, status=status_of(head.messages))


def status_of(messages: Sequence[bytes]) -> Literal["complete", "open", "incomplete"]:
    """What a turn of these messages waits for: nothing, a tool's result, or an answer."""
    last = _decode(messages[-1]) if messages else {}
    if last.get("role") != "assistant":
        return "incomplete"
    return "open" if last.get("tool_calls") or last.get("function_call") else "complete"


def _kinds(message: dict[str, Any]) -> Iterator[tuple[Kind, dict[str, Any] | None]]:
    """What a message is as items: itself, each of its tool calls, or a tool's result."""
    if message.get("role") in ("tool", "function"):
        yield "function_call_output", None
        return
    calls = _calls(message)
    if message.get("content") or not calls:
        yield "message", None
    for call in calls:
        yield "function_call", call


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Its tool calls; a call in the older form has its name for an id."""
    calls = [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
    if isinstance(function := message.get("function_call"), dict):
        calls.append({"id": function.get("name"), "type": "function", "function": function})
    return calls


def _id_of(turn: Turn, at: int, place: Place, kind: Kind) -> str:
    return f"{_PREFIXES[kind]}_{place.turn:x}_{place.item:x}_{_hash(turn, at, place)}"


def _hash(turn: Turn, at: int, place: Place) -> str:
    said = turn.digests[: (at + 1) * DIGEST_SIZE]
    return xxhash.xxh3_64_hexdigest(b"%b\0%d\0%d\0%b" % (turn.mark, place.turn, place.item, said))
