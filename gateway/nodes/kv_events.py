"""What vLLM and SGLang say about their KV caches, read from every form in which they have said it.

A message is [topic, sequence, payload] on ZeroMQ. The payload is MessagePack: a batch (an array, in one vLLM
revision a map) of events, each a positional array with trailing defaults left out (older engines) or a map
with a `type` (vLLM since #42892, SGLang since #37482). Block hashes are integers, signed or unsigned, of
64 bits, or bytes of any length: MessagePack has no wider integer, so 128 and 256 bits come as bytes.

Whatever comes is a value: a batch, or `Malformed` with the reason. Events of a type that nobody here knows
are counted, so that a new kind of event does not cost the knowledge of the known ones; an event of a known
type that cannot be read is counted apart, because what it said is lost. Token ids and extra keys are the bulk
of a batch and nothing in routing needs them: they stay undecoded until somebody asks.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

BlockHash = int | bytes

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes. The blocks of a whole step with 128k-token prompts, token ids included, are under 2 MiB."""
MAX_EVENTS = 65_536
MAX_HASHES = 262_144
"""Of one event. Both are checked before anything is allocated."""

_NONE = msgspec.Raw(b"\xc0")
_NAME_LENGTH = 40
_END = b"\xff" * 8

_Hashes = Annotated[list[BlockHash], msgspec.Meta(max_length=MAX_HASHES)]


class BlockStored(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Blocks that follow each other after `parent_block_hash` now lie on `medium`, or were used again there.

    vLLM repeats blocks it reuses in this very form when a request asks for it, and announces every copy.
    """

    block_hashes: _Hashes
    parent_block_hash: BlockHash | None = None
    token_ids: msgspec.Raw = _NONE
    """Undecoded: `token_ids` reads them. Empty for blocks that were moved to host memory."""
    block_size: int | None = None
    lora_id: Any = None
    medium: str | None = None
    """`GPU` where nothing is said; else `CPU`, `CPU_PINNED`, `DISK`, `STORAGE`, `EXTERNAL`."""
    lora_name: Any = None
    extra_keys: msgspec.Raw = _NONE
    """Undecoded: what else the hashes cover, per block (salt, adapter, media)."""
    group_idx: int | None = None
    """Which group of layers, in hybrid models."""
    kv_cache_spec_kind: str | None = None
    cache_salt: Any = None


class BlockRemoved(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Blocks that are on `medium` no more, or one copy of each."""

    block_hashes: _Hashes
    medium: str | None = None
    group_idx: int | None = None


class AllBlocksCleared(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The whole cache was dropped. An idle engine may never get round to saying so."""


KvEvent = BlockStored | BlockRemoved | AllBlocksCleared


class Batch(msgspec.Struct, frozen=True):
    """What a node said at one moment, in order."""

    ts: float
    """Unix seconds by the node's clock."""
    events: Sequence[KvEvent]
    rank: int | None = None
    """The data-parallel rank, where it says so."""
    unknown: Sequence[str] = ()
    """Types of events that are not known here, in order."""
    unread: int = 0
    """Events of known types that could not be read."""


class Malformed(msgspec.Struct, frozen=True):
    """What came is no batch, or no message; `reason` never quotes it."""

    reason: str


class Frame(msgspec.Struct, frozen=True):
    """One message, its payload undecoded."""

    seq: int
    """Position in the publisher's stream, from 0 at its start."""
    payload: bytes
    topic: bytes = b""


class EndOfReplay(msgspec.Struct, frozen=True):
    """The publisher has nothing more to repeat."""


class _StoredRow(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="BlockStored"):
    """vLLM's order. SGLang's ends at `medium`, or goes on with texts, which fit into the two Any fields."""

    block_hashes: _Hashes
    parent_block_hash: BlockHash | None = None
    token_ids: msgspec.Raw = _NONE
    block_size: int | None = None
    lora_id: Any = None
    medium: str | None = None
    lora_name: Any = None
    extra_keys: msgspec.Raw = _NONE
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None


class _RemovedRow(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="BlockRemoved"):
    block_hashes: _Hashes
    medium: str | None = None
    group_idx: int | None = None


class _ClearedRow(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="AllBlocksCleared"):
    pass


_Events = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_EVENTS)]


class _BatchRow(msgspec.Struct, frozen=True, array_like=True):
    ts: float
    events: _Events
    rank: Any = None


class _BatchMap(msgspec.Struct, frozen=True):
    ts: float
    events: _Events
    data_parallel_rank: Any = None
    attn_dp_rank: Any = None


class _Typed(msgspec.Struct, frozen=True):
    type: str


class _TypedRow(msgspec.Struct, frozen=True, array_like=True):
    type: str


_batch_row = msgspec.msgpack.Decoder(_BatchRow)
_batch_map = msgspec.msgpack.Decoder(_BatchMap)
_event_map = msgspec.msgpack.Decoder(KvEvent)
_event_row = msgspec.msgpack.Decoder(_StoredRow | _RemovedRow | _ClearedRow)
_tokens = msgspec.msgpack.Decoder(list[int] | None)
_KNOWN = ("BlockStored", "BlockRemoved", "AllBlocksCleared")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)


def read_frames(frames: Sequence[bytes]) -> Frame | EndOfReplay | Malformed:
    """One multipart message, live or replayed.

    Live it is [topic, seq, payload]. A replay has an empty frame in front and lacks the topic before vLLM
    #45177; so the last two frames are what counts, and the one before them is the topic or nothing.
    """
    if not 2 <= len(frames) <= 4:
        return Malformed(f"a message of {len(frames)} frames; two to four are known")
    seq, payload = frames[-2], frames[-1]
    if len(seq) != 8:
        return Malformed(f"a sequence number of {len(seq)} bytes; eight are known")
    if seq == _END:
        return EndOfReplay()
    if len(payload) > MAX_PAYLOAD:
        return Malformed(f"a payload of {len(payload)} bytes; at most {MAX_PAYLOAD} are read")
    topic = frames[-3] if len(frames) > 2 else b""
    return Frame(seq=int.from_bytes(seq, "big"), payload=payload, topic=topic)


def replay_request(start: int) -> list[bytes]:
    """What a DEALER sends to get every batch from `start` on that the publisher still has."""
    return [b"", start.to_bytes(8, "big")]


def read_batch(payload: bytes) -> Batch | Malformed:
    """The events of a payload. Never raises."""
    if len(payload) > MAX_PAYLOAD:
        return Malformed(f"a payload of {len(payload)} bytes; at most {MAX_PAYLOAD} are read")
    try:
        if _is_map(payload):
            said = _batch_map.decode(payload)
            ts, raws = said.ts, said.events
            rank = said.attn_dp_rank if said.data_parallel_rank is None else said.data_parallel_rank
        else:
            row = _batch_row.decode(payload)
            ts, raws, rank = row.ts, row.events, row.rank
    except _UNREADABLE as error:
        return Malformed(f"no batch of events: {type(error).__name__}")
    if not math.isfinite(ts):
        return Malformed("the batch has no time")
    events, unknown, unread = _read_events(raws)
    return Batch(ts=ts, events=events, rank=_rank(rank), unknown=unknown, unread=unread)


def token_ids(event: BlockStored) -> list[int] | None:
    """The tokens of the event's blocks, in order; None where it has none, or pairs (speculative decoding)."""
    try:
        tokens: list[int] | None = _tokens.decode(event.token_ids)
    except _UNREADABLE:
        return None
    return tokens


def with_rank(endpoint: str, rank: int) -> str:
    """Where a data-parallel rank publishes: its own port, counted from the first rank's.

    Raises ValueError for an endpoint without a port.
    """
    if not rank:
        return endpoint
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal():
        raise ValueError(f"{endpoint!r} has no port to count ranks from; write tcp://HOST:PORT")
    return f"{host}:{int(port) + rank}"


def _read_events(raws: Sequence[msgspec.Raw]) -> tuple[list[KvEvent], list[str], int]:
    events: list[KvEvent] = []
    unknown: list[str] = []
    unread = 0
    for raw in raws:
        try:
            events.append(_event_map.decode(raw) if _is_map(raw) else _from_row(raw))
        except _UNREADABLE:
            name = _type_of(raw)
            if name is None or name in _KNOWN:
                unread += 1
            else:
                unknown.append(name[:_NAME_LENGTH])
    return events, unknown, unread


def _from_row(raw: msgspec.Raw) -> KvEvent:
    row = _event_row.decode(raw)
    if isinstance(row, _StoredRow):
        return BlockStored(
            block_hashes=row.block_hashes,
            parent_block_hash=row.parent_block_hash,
            token_ids=row.token_ids,
            block_size=row.block_size,
            lora_id=row.lora_id,
            medium=row.medium,
            lora_name=row.lora_name,
            extra_keys=row.extra_keys,
            group_idx=row.group_idx,
            kv_cache_spec_kind=row.kv_cache_spec_kind,
        )
    if isinstance(row, _RemovedRow):
        return BlockRemoved(block_hashes=row.block_hashes, medium=row.medium, group_idx=row.group_idx)
    return AllBlocksCleared()


def _type_of(raw: msgspec.Raw) -> str | None:
    """The type that an event gives itself, if it has one."""
    kind: type[_Typed | _TypedRow] = _Typed if _is_map(raw) else _TypedRow
    try:
        return msgspec.msgpack.decode(raw, type=kind).type
    except _UNREADABLE:
        return None


def _rank(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_map(data: bytes | msgspec.Raw) -> bool:
    """Whether MessagePack says here that a map begins."""
    first = memoryview(data)[:1].tobytes()
    return b"\x80" <= first <= b"\x8f" or first in (b"\xde", b"\xdf")
