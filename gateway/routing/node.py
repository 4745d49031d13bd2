"""What routing knows of a node. Facts only: the roster changes them, the choice reads them."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec

Engine = Literal["vllm", "sglang", "openai"]


class NodeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node as an operator describes it."""

    engine: Engine
    url: str
    id: str = ""
    """Its name in metrics and for operators; host and port of the URL where none is given."""
    models: tuple[str, ...] = ()
    """What it serves; empty: whatever it says itself."""
    weight: float = 1.0
    """Its share of what is not bound, relative to the others."""
    max_running: int = 0
    """How many requests this gateway runs on it at once; 0: no cap."""
    api_key: str = ""


@dataclass(slots=True)
class Node:
    """One node's state as this replica knows it. Unknown is None, never zero."""

    spec: NodeSpec
    id: str
    is_healthy: bool = False
    is_draining: bool = False
    models: frozenset[str] = frozenset()
    block_size: int = 1
    """Tokens per cache block; 1 where the engine caches token by token (llama.cpp)."""
    max_context: int | None = None
    running: int = 0
    """Requests of this replica under way."""
    pending_tokens: int = 0
    """Uncached prompt tokens of those that have not produced a byte yet."""
    waiting: int | None = None
    """Requests queued on the node, as it last reported."""
    kv_usage: float | None = None
    """Share of its KV cache in use, 0..1, as it last reported."""
    prefill_rate: float = 2000.0
    """Uncached prompt tokens a second, a moving average of what was seen."""
    failures: int = 0
    """Consecutive failed requests and probes."""
    problem: str = ""
    """Why it is not healthy, for operators."""
    notes: tuple[str, ...] = field(default=())
    """What its settings lack, and the flag that mends it."""

    def is_busy(self) -> bool:
        """Whether somebody waits for it, as far as this replica knows."""
        return self.running > 0 or bool(self.waiting)

    def is_full(self) -> bool:
        """Whether its cap is reached."""
        return bool(self.spec.max_running) and self.running >= self.spec.max_running
