"""What routing knows of a node. Facts only: the roster changes them, the choice reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from gateway.routing.breaker import CLOSED, Breaker
from gateway.routing.kv_source import KvSource
from gateway.routing.lane import Lane
from gateway.routing.retention import Retention
from gateway.routing.truth import Truth

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
    rank: int | None = None
    """One data-parallel rank of the server at that address: a node of its own, since it has a cache of its
    own. None: there is only one, or the server picks.
    """
    kv_events: KvSource | None = None
    """Where its engine publishes KV events, where it does not say so itself."""

    @property
    def name(self) -> str:
        """What the node is called, everywhere."""
        rank = "" if self.rank is None else f"-rank{self.rank}"
        return self.id or f"{urlsplit(self.url).netloc}{rank}"


class TemplateFacts(msgspec.Struct, frozen=True):
    """What a node's chat template makes of a dialogue. None is unknown."""

    takes_system: bool | None = None
    takes_greeting: bool | None = None
    """Whether the assistant may speak first."""
    keeps_turns: bool | None = None
    """Whether a prompt begins with the one before it."""
    keeps_thoughts: bool | None = None
    """Whether answers come back with the thoughts in their text."""


class EngineFacts(msgspec.Struct, frozen=True):
    """What an engine said or showed of itself when it was met. None is unknown, never a guess."""

    product: str = ""
    version: str = ""
    caches: bool | None = None
    """Whether it keeps prefixes at all."""
    reports_cached: bool | None = None
    """Whether its answers tell how much of the prompt came from the cache."""
    takes_priority: bool | None = None
    """Whether a request may carry a `priority`."""
    block_size: int | None = None
    """Tokens per cache block, where that is told apart from the load."""
    kv_tokens: int | None = None
    """Tokens that its KV cache holds."""
    context: int | None = None
    """Tokens that prompt and answer really have together, where that is not what the model list says."""
    ranks: int | None = None
    """Data-parallel ranks behind its address."""
    kv_source: KvSource | None = None
    """Where it publishes KV events."""
    max_lora_rank: int | None = None
    lora_modules: frozenset[str] = frozenset()
    """The modules that it takes adapters of; empty: not told."""
    template: TemplateFacts = TemplateFacts()


UNMET = EngineFacts()
"""Of a node that nobody asked yet."""


@dataclass(slots=True)
class Node:
    """One node's state as this replica knows it. Unknown is None, never zero."""

    spec: NodeSpec
    id: str
    is_healthy: bool = False
    is_draining: bool = False
    models: frozenset[str] = frozenset()
    """What requests can ask it for, adapters included."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """Its LoRA adapters, each with the model that it belongs to."""
    roots: Mapping[str, str] = field(default_factory=dict)
    """By model: its own name or path, where the engine tells it."""
    block_size: int = 1
    """Tokens per cache block; 1 where the engine caches token by token (llama.cpp)."""
    max_context: int | None = None
    running: int = 0
    """Requests of this replica under way."""
    waiting: int | None = None
    """Requests queued on the node, as it last reported."""
    working: int | None = None
    """Requests it works on, whoever sent them, as it last reported."""
    progress: int | None = None
    """A number that is another one after every step that it computed, as it last reported."""
    kv_usage: float | None = None
    """Share of its KV cache in use, 0..1, as it last reported."""
    failures: int = 0
    """Consecutive failed probes."""
    breaker: Breaker = CLOSED
    """What came of the last requests."""
    problem: str = ""
    """Why it is not healthy, for operators."""
    notes: tuple[str, ...] = field(default=())
    """What its settings lack, and the flag that mends it."""
    facts: EngineFacts = UNMET
    """What its engine is, and is set to."""
    retention: Retention = field(default_factory=Retention)
    """How far back its cache may be trusted, by its KV events."""
    truth: Truth = field(default_factory=Truth)
    """Whether it keeps what is expected of it."""
    miscounts: int = 0
    """Answers of which it reported token counts that cannot be."""
    missed: list[tuple[float, float]] = field(default_factory=list)
    """What was not found on it since the last poll: when that was placed, and how old it was then."""
    lane: Lane = field(default_factory=Lane)
    """What is under way there, as the price sees it."""

    def is_busy(self) -> bool:
        """Whether somebody waits for it, as far as this replica knows."""
        return self.running > 0 or bool(self.waiting)

    def is_full(self) -> bool:
        """Whether its cap is reached; while its breaker is half-open, one request is all it gets."""
        if self.breaker.state == "half_open":
            return self.running > 0
        return bool(self.spec.max_running) and self.running >= self.spec.max_running
