"""What `friendo advise` is asked, and all that it answers, as records."""

from pathlib import Path

import msgspec

from gateway.advise.needles.probe import Recalled
from gateway.advise.pricing import Prices
from gateway.routing.node import Engine
from history.advice import Advice, Closed
from history.likelihood import TOLERANCE, Curve
from history.recall import RecallRule
from history.replay import Circumstances, Outcome
from history.traffic import Traffic
from history.window import WindowRule


class NodeChoice(msgspec.Struct, frozen=True):
    """The node that counts, is priced, and scores."""

    engine: Engine
    url: str
    model: str
    api_key: str = ""


class Question(msgspec.Struct, frozen=True):
    """The command line, with what it leaves open taken from the configuration."""

    window: WindowRule
    recall: RecallRule
    most_summary: int
    min_turns: int | None = None
    most_turns: int = 160
    """No `max_turns` beyond this is tried."""
    r0: float | None = None
    p_cold: float | None = None
    retention_s: float = 600.0
    cache_tokens: int = 0
    summary_tokens: int | None = None
    output_price: float = 5.0
    block: int | None = None
    limit: int = 200_000
    """Turns that are listened to."""
    seed: int = 0
    node: NodeChoice | None = None
    quality: bool = False
    quality_replies: int = 64
    tolerance: float = TOLERANCE
    state: Path | None = None


class NodeFacts(msgspec.Struct, frozen=True):
    """What the node told of itself and what was measured there."""

    product: str
    version: str
    block: int | None
    kv_tokens: int | None
    prices: Prices


class Tried(msgspec.Struct, frozen=True):
    """A window as it was replayed, and the formula's word on it."""

    outcome: Outcome
    predicted_cost: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None


class Findings(msgspec.Struct, frozen=True):
    """Everything that a report says."""

    source: str
    seed: int
    is_partial: bool
    """The source had more turns than were listened to."""
    wrong_lines: int
    measured_share: float
    """The share of turns whose tokens the engine had told."""
    counts: str
    """Where the other tokens come from: `estimated`, `counted by the node`, or `made up`."""
    traffic: Traffic
    circumstances: Circumstances
    r0_from: str
    """`measured`, `given` or `assumed`."""
    p_cold: float
    p_cold_from: str
    """`measured`, `given` or `unknown`."""
    min_turns_from: str
    """`quality`, `given` or `configured`."""
    current: WindowRule
    node: NodeFacts | None
    closed: tuple[Closed, ...]
    tried: tuple[Tried, ...]
    advice: Advice
    distances: tuple[int, ...]
    existing: tuple[int, ...]
    """How many prompts have a turn so many turns back, by distance."""
    recalled: tuple[Recalled, ...]
    recall_from: str
    """`own` or `built-in` dialogues."""
    quality: tuple[Curve, ...]
    model: str
    """Whose likelihoods these are; empty: nobody's."""
