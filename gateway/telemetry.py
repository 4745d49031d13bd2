"""What the gateway counts: expected and actual cache hits, answers, latencies.

One book feeds both `/admin/cache` and `/metrics`. Nothing here carries a user, a key or a text.
"""

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Phase = Literal["first", "warm", "cut", "stateless"]
"""Where a turn stands: a dialogue's first, between two cuts, the first after a cut, or outside of any."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
REMOVED = "removed"
"""What stands for all nodes that are gone."""
MINUTES = 24 * 60
"""How far back the time series goes."""


class CacheKey(msgspec.Struct, frozen=True):
    """What hits are told apart by."""

    model: str
    node: str
    route: str
    phase: Phase


@dataclass(slots=True)
class CacheTally:
    """Sums over answers. `reported` are those whose engine said how much came from its cache."""

    answers: int = 0
    reported: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    expected_tokens: int = 0
    cached_tokens: int = 0
    reusable_tokens: int = 0
    """What an ample cache on the right node would have served: the bound that hits are held against."""

    def add(self, score: "Score") -> None:
        """Count one answer."""
        self.answers += 1
        self.prompt_tokens += score.prompt_tokens
        self.completion_tokens += score.completion_tokens
        self.expected_tokens += score.expected_tokens
        self.reusable_tokens += score.reusable_tokens
        if score.cached_tokens is not None:
            self.reported += 1
            self.cached_tokens += score.cached_tokens

    def merge(self, other: "CacheTally") -> None:
        """Add another tally's sums."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_SUMS = tuple(one.name for one in fields(CacheTally))


class Score(msgspec.Struct, frozen=True):
    """One answer's tokens. `cached_tokens` is None where the engine does not report it."""

    prompt_tokens: int
    completion_tokens: int
    expected_tokens: int
    reusable_tokens: int
    cached_tokens: int | None


@dataclass(slots=True)
class Histogram:
    """Counts of seconds by upper bound."""

    bounds: tuple[float, ...] = SECONDS
    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one measurement."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus buckets."""
        running, buckets = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((bound, float(running)))
        return buckets


class Telemetry(Collector):
    """The book. A Prometheus collector by its `collect`."""

    def __init__(self) -> None:
        self.cache: dict[CacheKey, CacheTally] = defaultdict(CacheTally)
        self.background: dict[str, CacheTally] = defaultdict(CacheTally)
        """What no user waited for, by purpose: a cost, and no part of the hit rate."""
        self.minutes: deque[tuple[int, CacheTally]] = deque(maxlen=MINUTES)
        self.requests: Counter[tuple[str, int]] = Counter()
        """By model asked for (served ones only) and HTTP status."""
        self.events: Counter[str] = Counter()
        """Rare things worth a number: epochs, branches, ceilings, replays, mismatches, faults of nodes."""
        self.first_byte: dict[str, Histogram] = defaultdict(Histogram)
        """Seconds from the request read to the first byte of the answer, by node."""
        self.overhead = Histogram()
        """Seconds the gateway added before the request went to a node, waiting in line left out."""
        self.queued = Histogram()
        """Seconds that requests waited for a node with room, in vain or not."""
        self.queue_length: Callable[[], int] = lambda: 0
        """How many wait now."""

    def counted(self, model: str, status: int) -> None:
        """Note one request's outcome. Unknown models share one label, or clients could fill the memory."""
        if status in (401, 403, 404) or ((model, 200) not in self.requests and status != 200):
            model = "other"
        self.requests[model, status] += 1

    def scored(self, key: CacheKey, score: Score, *, now: float) -> None:
        """Note one answer's expected and actual hit."""
        self.cache[key].add(score)
        minute = int(now) // 60
        if not self.minutes or self.minutes[-1][0] != minute:
            self.minutes.append((minute, CacheTally()))
        self.minutes[-1][1].add(score)

    def removed(self, node: str) -> None:
        """A node is gone: its tokens stay in the sums, under one name for all, or pods fill the memory."""
        for key in [one for one in self.cache if one.node == node]:
            self.cache[msgspec.structs.replace(key, node=REMOVED)].merge(self.cache.pop(key))
        self.first_byte.pop(node, None)

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        yield from self._cache_metrics()
        yield from self._background_metrics()
        requests = CounterMetricFamily(
            "friendo_requests",
            "Requests answered or refused, by model and HTTP status.",
            labels=("model", "status"),
        )
        for (model, status), count in self.requests.items():
            requests.add_metric((model, str(status)), count)
        yield requests
        events = CounterMetricFamily("friendo_events", "Rare events by kind.", labels=("kind",))
        for kind, count in self.events.items():
            events.add_metric((kind,), count)
        yield events
        first_byte = HistogramMetricFamily(
            "friendo_first_byte_seconds", "Request read to first byte of the answer.", labels=("node",)
        )
        for node, histogram in self.first_byte.items():
            first_byte.add_metric((node,), histogram.cumulative(), histogram.total)
        yield first_byte
        overhead = HistogramMetricFamily(
            "friendo_overhead_seconds", "Request read to request sent to a node."
        )
        overhead.add_metric((), self.overhead.cumulative(), self.overhead.total)
        yield overhead
        queued = HistogramMetricFamily(
            "friendo_queue_seconds", "Time for which requests waited until a node had room, in vain or not."
        )
        queued.add_metric((), self.queued.cumulative(), self.queued.total)
        yield queued
        yield GaugeMetricFamily(
            "friendo_queue_length", "Requests that wait for a node with room.", self.queue_length()
        )

    def _background_metrics(self) -> Iterator[Metric]:
        for name in ("answers", "prompt_tokens", "cached_tokens", "completion_tokens"):
            family = CounterMetricFamily(
                f"friendo_background_{name}",
                f"{name.replace('_', ' ')} of calls that no user waited for.".capitalize(),
                labels=("purpose",),
            )
            for purpose, tally in self.background.items():
                family.add_metric((purpose,), getattr(tally, name))
            yield family

    def _cache_metrics(self) -> Iterator[Metric]:
        labels = ("model", "node", "route", "phase")
        for name in ("answers", "prompt_tokens", "expected_tokens", "cached_tokens", "reusable_tokens"):
            family = CounterMetricFamily(f"friendo_cache_{name}", _HELP[name], labels=labels)
            for key, tally in self.cache.items():
                family.add_metric((key.model, key.node, key.route, key.phase), getattr(tally, name))
            yield family


def registry_of(*books: Collector) -> CollectorRegistry:
    """A Prometheus registry with nothing in it but these."""
    registry = CollectorRegistry(auto_describe=False)
    for book in books:
        registry.register(book)
    return registry


_HELP = {
    "answers": "Answers given.",
    "prompt_tokens": "Prompt tokens of those answers.",
    "expected_tokens": "Prompt tokens expected to come from the node's prefix cache.",
    "cached_tokens": "Prompt tokens that came from the node's prefix cache, by its own report.",
    "reusable_tokens": "Prompt tokens that an ample cache on the right node would have served.",
}
