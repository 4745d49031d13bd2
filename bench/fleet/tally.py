"""What is counted while a fleet runs, and the figures that come of it.

*Warm precision*: of the follow-ups whose prefix (all of it that is the dialogue's own, but a tenth) some node
holds at the time of choice, the share that goes to such a node. Turns whose prefix no node can hold, as after
a cut without pre-warm, do not count.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from bench.fleet.node import SimNode
from bench.fleet.prompt import Request

_WHOLE_ENOUGH = 0.9


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One run in numbers. Seconds are simulated; tokens are per turn; loads are max/mean over the nodes."""

    turns: int
    hit: float
    """Cached share of all prompt tokens."""
    uncached: float
    background: float
    """Tokens computed for nobody's turn: summaries and pre-warms, per turn."""
    precision: float | None
    followups: int
    """Turns that precision is about."""
    ttft_p50: float
    ttft_p90: float
    ttft_p99: float
    load: float
    """Requests on a node, averaged over time."""
    placed: float
    """Turns sent to a node."""
    wall_s: float
    broken: int


class Tally:
    """Counts one run."""

    def __init__(self) -> None:
        self.turns: list[Request] = []
        """Measured turns, complete or broken, in the order of their ends."""
        self.entered = 0
        self.left = 0
        self.background_tokens = 0
        self.held_somewhere = 0
        self.held_there = 0
        self._areas: list[float] = []
        self._began_at = 0.0
        self._ended_at = 0.0

    def begin(self, nodes: Sequence[SimNode], now: float) -> None:
        """Loads are measured from here on."""
        for node in nodes:
            node.settle(now)
        self._areas = [node.load_area for node in nodes]
        self._began_at = now

    def arrived(self, _: Request) -> None:
        """A request came."""
        self.entered += 1

    def placed(self, request: Request, nodes: Sequence[SimNode]) -> None:
        """A node was chosen; `request.node` says which."""
        prompt = request.prompt
        if not prompt.reusable or not request.is_measured or request.kind != "turn":
            return
        least = prompt.shared + math.ceil(_WHOLE_ENOUGH * (prompt.reusable - prompt.shared))
        if nodes[request.node].cache.match(prompt.extents) >= least:
            self.held_there += 1
            self.held_somewhere += 1
        elif any(node.is_alive and node.cache.match(prompt.extents) >= least for node in nodes):
            self.held_somewhere += 1

    def ended(self, request: Request) -> None:
        """A request is over."""
        self.left += 1
        if not request.is_measured:
            return
        self._ended_at = max(self._ended_at, request.ended_at)
        if request.kind == "turn":
            self.turns.append(request)
        else:
            self.background_tokens += request.uncached()

    def figures(self, nodes: Sequence[SimNode]) -> Figures:
        """The numbers of the whole run."""
        good = [turn for turn in self.turns if not turn.is_broken]
        if not good:
            raise ValueError("no measured turn was answered: play longer, or measure from an earlier time")
        prompts = sum(turn.prompt.tokens for turn in good)
        uncached = sum(turn.uncached() for turn in good)
        waits = sorted(turn.first_at - turn.arrived_at for turn in good)
        areas = [
            node.load_area - before
            for node, before in zip(nodes, self._areas or [0.0] * len(nodes), strict=True)
        ]
        placed = Counter(turn.node for turn in good)
        return Figures(
            turns=len(good),
            hit=1 - uncached / prompts,
            uncached=uncached / len(good),
            background=self.background_tokens / len(good),
            precision=self.held_there / self.held_somewhere if self.held_somewhere else None,
            followups=self.held_somewhere,
            ttft_p50=share_of(waits, 0.5),
            ttft_p90=share_of(waits, 0.9),
            ttft_p99=share_of(waits, 0.99),
            load=spread(area for area, node in zip(areas, nodes, strict=True) if node.is_alive),
            placed=spread(placed[node.index] for node in nodes if node.is_alive),
            wall_s=self._ended_at - self._began_at,
            broken=len(self.turns) - len(good),
        )


def share_of(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so large a share does not exceed; of sorted values."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(loads: Iterable[float]) -> float:
    """The largest over the mean; 1 is even."""
    values = list(loads)
    total = sum(values)
    return max(values) * len(values) / total if total else 1.0
