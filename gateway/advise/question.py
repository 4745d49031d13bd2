"""What `friendo advise` is asked, and all that it answers, as records."""

from math import inf

import msgspec

from gateway.advise.needles.probe import Recalled
from gateway.advise.pricing import Prices
from history.advice import Advice, Closed
from history.likelihood import TOLERANCE, Curve
from history.recall import RecallRule
from history.replay import Circumstances, Outcome
from history.traffic import Traffic
from history.window import WindowRule


class Assumed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is taken as it is said, in place of what would be measured or usual. Tokens, seconds, units."""

    r0: float | None = None
    """A cached token against an uncached one; measured with a node, else 0.1."""
    p_cold: float | None = None
    """The share of turns whose KV is gone; measured by the pauses and the retention."""
    retention_s: float = 600.0
    """How long KV is kept that nobody touches."""
    cache_tokens: int = 0
    """What the KV caches of all nodes hold together; 0: no limit but the retention."""
    summary_tokens: int | None = None
    """A summary's length; as the store has them, else half of compaction.max_tokens. 0: no summaries."""
    output_price: float = 5.0
    """A token of output against one of input, for the summary calls."""
    block: int | None = None
    """Tokens per cache block; as the node says, else 16."""
    most_turns: int = 160
    """No `max_turns` beyond this is tried."""
    quality_replies: int = 64
    """How many replies `--quality` holds out."""
    tolerance: float = TOLERANCE
    """How many nats a token the knee may lie behind the best window."""
    gap_median: float = 120.0
    """The pause between two messages of made-up people."""
    away_median: float = 7200.0
    """The pause between two of their sessions."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for what cannot be."""
        bounds = {
            "r0": (0, 1), "p_cold": (0, 1), "retention_s": (1, inf), "cache_tokens": (0, 10**12),
            "summary_tokens": (0, 100_000), "output_price": (0, 1e6), "block": (1, 8192),
            "most_turns": (1, 2000), "quality_replies": (8, 10_000), "tolerance": (0, 10),
            "gap_median": (0.1, 1e8), "away_median": (0.1, 1e8),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must lie between {low:g} and {high:g}, got {value:g}")


class Question(msgspec.Struct, frozen=True):
    """The command line, with what it leaves open taken from the configuration."""

    window: WindowRule
    """The one in force."""
    recall: RecallRule
    most_summary: int
    min_turns: int | None = None
    limit: int = 200_000
    """Turns that are listened to."""
    seed: int = 0
    quality: bool = False
    assumed: Assumed = Assumed()


class NodeFacts(msgspec.Struct, frozen=True):
    """What the node told of itself and what was measured there."""

    product: str
    version: str
    block: int | None
    kv_tokens: int | None
    prices: Prices | None
    unpriced: str = ""
    """Why there are no prices."""


class Tried(msgspec.Struct, frozen=True):
    """A window as it was replayed, and the formula's word on it."""

    outcome: Outcome
    predicted_cost: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a report says."""

    source: str
    seed: int
    is_partial: bool
    """The source had more turns than were listened to."""
    wrong_lines: int = 0
    measured_share: float = 0.0
    """The share of turns whose tokens the engine had told."""
    counts: str = "estimated"
    """Where the other tokens come from: `estimated`, `counted by the node`, or `made up`."""
    traffic: Traffic
    circumstances: Circumstances
    r0_from: str = "assumed"
    """`measured`, `given` or `assumed`."""
    p_cold: float = 0.0
    p_cold_from: str = "unknown"
    """`measured`, `given` or `unknown`."""
    min_turns_from: str = "configured"
    """`quality`, `given` or `configured`."""
    current: WindowRule
    node: NodeFacts | None
    closed: tuple[Closed, ...]
    tried: tuple[Tried, ...]
    advice: Advice
    distances: tuple[int, ...]
    existing: tuple[int, ...]
    """How many prompts have a turn so many turns back, by distance."""
    recalled: tuple[Recalled, ...] = ()
    recall_from: str = "built-in"
    """`own` or `built-in` dialogues."""
    quality: tuple[Curve, ...]
    model: str
    """Whose likelihoods these are; empty: nobody's."""
