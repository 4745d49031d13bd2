"""How turns far behind the window lie in the archive: pieces of `SEGMENT` turns, under hashed names.

A piece is written whole before the store lets go of its turns, so nothing is ever in neither. Names say
nothing of ids; contents are compressed msgpack.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from history.conversation import ConversationKey, Turn
from history.errors import StoreFault

SEGMENT = 64
"""Turns in a piece."""

_PIECE = re.compile(r"[0-9a-f]{32}/[0-9a-f]{64}/[0-9]{10}")
_MAX_PIECE_BYTES = 256 * 1024 * 1024
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Turn, ...]).decode


class ArchiveRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where turns far behind the window go."""

    url: str = ""
    """`file:///folder`, `s3://bucket/prefix`, or what else obstore knows; empty: they stay in Redis."""
    behind_turns: int = 128
    """How many turns behind the window stay in Redis: for edits, and for recall at once."""
    keep_days: float = 0.0
    """What a conversation that expired has left in the archive goes so many days after it was written; 0: it
    stays. What was erased goes at once."""


def folder_of(key: ConversationKey) -> str:
    """The folder of a conversation: 32 hexadecimal digits for the tenant, 64 for the conversation in it."""
    tenant = hashlib.sha256(key.tenant.encode()).hexdigest()[:32]
    whole = f"{key.tenant}\0{key.id}".encode("utf-8", "surrogatepass")
    return f"{tenant}/{hashlib.sha256(whole).hexdigest()}"


def piece_name(key: ConversationKey, start: int) -> str:
    """The name of the piece that begins at turn `start`, a multiple of `SEGMENT`."""
    return f"{folder_of(key)}/{start:010d}"


def is_piece(name: str) -> bool:
    """Whether this is the name of a piece: nothing else in the folder or bucket is ours to judge."""
    return _PIECE.fullmatch(name) is not None


def starts(start: int, stop: int) -> Iterable[int]:
    """Where the pieces begin that hold turns `start` to `stop`."""
    return range(start - start % SEGMENT, stop, SEGMENT)


def pack(turns: Sequence[Turn]) -> bytes:
    """A piece's content. Raises `ValueError` unless it is whole."""
    if len(turns) != SEGMENT:
        raise ValueError(f"a piece has {SEGMENT} turns, not {len(turns)}")
    return zlib.compress(_encode(turns))


def unpack(data: bytes) -> tuple[Turn, ...]:
    """The turns of a piece. Raises `StoreFault` if it is none."""
    reader = zlib.decompressobj()
    try:
        turns = _decode(reader.decompress(data, _MAX_PIECE_BYTES))
    except (zlib.error, msgspec.DecodeError) as error:
        raise StoreFault("the archive holds something that is no piece of a dialogue") from error
    if len(turns) != SEGMENT:
        raise StoreFault(f"a piece in the archive has {len(turns)} turns and not {SEGMENT}")
    return turns
