"""What a cache announces, and the forms in which vLLM and SGLang have written it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec


@dataclass(frozen=True, slots=True)
class Stored:
    """Blocks of `block_size` tokens were stored after `parent`."""

    hashes: Sequence[int]
    parent: int | None = None
    block_size: int = 16
    medium: str = "GPU"


@dataclass(frozen=True, slots=True)
class Removed:
    """Blocks were evicted."""

    hashes: Sequence[int]
    medium: str = "GPU"


@dataclass(frozen=True, slots=True)
class Cleared:
    """The cache was dropped."""


Event = Stored | Removed | Cleared


@dataclass(frozen=True, slots=True)
class KvForm:
    """How a version of an engine writes. The defaults are vLLM's and SGLang's of late 2026."""

    events: Literal["map", "row"] = "map"
    batch: Literal["row", "map"] = "row"
    hashes: Literal["unsigned", "signed", "bytes"] = "unsigned"
    topic: bytes = b""
    has_replay_topic: bool = True
    """Before vLLM #45177 a replay had no topic."""

    def encode(self, ts: float, events: Sequence[Event]) -> bytes:
        """The payload of a batch."""
        written = [self._event(event) for event in events]
        if self.batch == "map":
            return msgspec.msgpack.encode({"ts": ts, "events": written, "data_parallel_rank": 0})
        return msgspec.msgpack.encode([ts, written, 0])

    def _event(self, event: Event) -> Any:  # a map or a row
        match event:
            case Stored():
                tokens = list(range(len(event.hashes) * event.block_size))
                fields: dict[str, Any] = {
                    "type": "BlockStored",
                    "block_hashes": [self._hash(one) for one in event.hashes],
                    "parent_block_hash": None if event.parent is None else self._hash(event.parent),
                    "token_ids": tokens,
                    "block_size": event.block_size,
                    "lora_id": None,
                    "medium": event.medium,
                }
            case Removed():
                hashes = [self._hash(one) for one in event.hashes]
                fields = {"type": "BlockRemoved", "block_hashes": hashes, "medium": event.medium}
            case Cleared():
                fields = {"type": "AllBlocksCleared"}
        return fields if self.events == "map" else list(fields.values())

    def _hash(self, value: int) -> int | bytes:
        match self.hashes:
            case "signed":
                return value - (1 << 64) if value >= 1 << 63 else value
            case "bytes":
                return value.to_bytes(32, "big")
            case _:
                return value
