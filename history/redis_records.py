"""How turns and conversations look in Redis: msgpack for turns and bindings, plain text for the rest."""

import struct
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from history.conversation import Binding, Conversation, Memory, PastMark, Stored, Turn
from history.errors import StoreFault
from history.meaning import NO_VECTORS, VectorSpan
from history.ports import Branch, Change
from history.redis_keys import decode_id, encode_id

_Record = TypeVar("_Record")

_VOLATILE = 4
_VERSION_HEAD = struct.Struct(">II")

_encode = msgspec.msgpack.Encoder().encode
_turn = msgspec.msgpack.Decoder(Turn)
_turns = msgspec.msgpack.Decoder(tuple[Turn, ...])
_branch = msgspec.msgpack.Decoder(tuple[int, tuple[Turn, ...]])
_memory = msgspec.msgpack.Decoder(Memory)
_binding = msgspec.msgpack.Decoder(Binding)


def encode_turn(turn: Turn) -> bytes:
    """One element of the list of turns."""
    return _encode(turn)


def decode_turn(data: bytes) -> Turn:
    """One element of the list of turns. Raises `StoreFault` if it is something else."""
    return _decoded(_turn, data)


def decode_turns(data: bytes) -> tuple[Turn, ...]:
    """Turns packed by the script into one array."""
    return _decoded(_turns, data)


def encode_branch(branch: Branch) -> bytes:
    """The index at which a branch left, and its turns; in the form in which the script writes one."""
    index, turns = branch
    return b"\x92\xce" + index.to_bytes(4) + _encode(turns)


def decode_span(head: bytes) -> VectorSpan:
    """Which turns have a vector, by the head of their list; nothing where there is none."""
    if not head:
        return NO_VECTORS
    start, stop, past, form = head.decode().split(" ")
    return VectorSpan(form=form, past=int(past), start=int(start), stop=int(stop))


def decode_branch(data: bytes) -> Branch:
    """The index at which a branch left, and its turns."""
    return _decoded(_branch, data)


def decode_conversation(fields: Sequence[bytes | None]) -> Conversation:
    """The conversation from the values of `FIELDS` in slot.lua, in that order."""
    (user, character, persona, epoch, turn_count, cut, memories, shows, grows_to, *rest) = fields
    memory_version, branches, past, base, metadata, binding, stored, created_at, updated_at = rest
    return Conversation(
        user=decode_id(user) if user else "",
        character=decode_id(character) if character else "",
        persona=persona or b"",
        epoch=int(epoch or 0),
        turn_count=int(turn_count or 0),
        cut=int(cut or 0),
        memories=_memories(memories or b""),
        shows=int(shows or 0),
        grows_to=int(grows_to or 0),
        memory_version=int(memory_version or 0),
        branches=int(branches or 0),
        past=_past(past),
        base=int(base or 0),
        metadata=metadata or b"",
        binding=_decoded(_binding, binding) if binding else None,
        stored=decode_stored(stored),
        created_at=float(created_at or 0),
        updated_at=float(updated_at or 0),
    )


def decode_changes(known: Conversation, fields: Sequence[bytes | None]) -> Conversation:
    """The conversation from all of its fields, or from those of `VOLATILE` where the others are known."""
    if len(fields) > _VOLATILE:
        return decode_conversation(fields)
    binding, base, metadata, stored = fields
    return msgspec.structs.replace(
        known,
        binding=_decoded(_binding, binding) if binding else None,
        base=int(base or 0),
        metadata=metadata or b"",
        stored=decode_stored(stored),
    )


def encode_memory(memory: Memory) -> bytes:
    """One version: how many turns it covers and how long it is, 4 bytes each, so that a script can sort
    versions out without reading them; then its record.
    """
    record = _encode(memory)
    return _VERSION_HEAD.pack(memory.covers_to, len(record)) + record


def decode_stored(text: bytes | None) -> Stored:
    """`turns bytes`, as the script writes it."""
    turns, size = (text or b"0 0").split()
    return Stored(turns=int(turns), bytes=int(size))


def encode_binding(binding: Binding) -> bytes:
    """The field `binding`."""
    return _encode(binding)


def changed_fields(change: Change) -> list[bytes]:
    """Names and values, in turn, of the fields that a change sets."""
    fields: list[bytes] = []
    if change.user is not None:
        fields += (b"user", encode_id(change.user))
    if change.character is not None:
        fields += (b"character", encode_id(change.character))
    if change.persona is not None:
        fields += (b"persona", change.persona)
    if change.shows is not None:
        fields += (b"shows", b"%d" % change.shows)
    if change.grows_to is not None:
        fields += (b"grows_to", b"%d" % change.grows_to)
    if change.metadata is not None:
        fields += (b"metadata", change.metadata)
    if change.binding is not None:
        fields += (b"binding", encode_binding(change.binding))
    return fields


def _past(text: bytes | None) -> PastMark:
    """`number reach`, as the script writes it."""
    number, reach = (text or b"0 0").split()
    return PastMark(number=int(number), reach=int(reach))


def _memories(blob: bytes) -> tuple[Memory, ...]:
    found: list[Memory] = []
    at = 0
    while at + _VERSION_HEAD.size <= len(blob):
        _, length = _VERSION_HEAD.unpack_from(blob, at)
        at += _VERSION_HEAD.size
        found.append(_decoded(_memory, blob[at : at + length]))
        at += length
    return tuple(found)


def _decoded(decoder: "msgspec.msgpack.Decoder[_Record]", data: bytes) -> _Record:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as error:
        raise StoreFault(f"the store holds something that is no record of this program: {error}") from error
