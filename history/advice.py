"""Which window a traffic should have: the formula's answer beside the best of a replayed grid. Pure.

The formula knows means only; the replay knows this traffic and nothing else. Where both agree within
`TOLERANCE` the formula's window is taken, since it overfits nothing; else the replay's.

`min_turns` is never found by cost: fewer turns are always cheaper. Quality sets it (`likelihood`).
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from history.economics import (
    Facts,
    best_max_turns,
    best_step,
    cost_per_turn,
    hit_rate,
    holding_price,
    mean_prompt,
    retention_s,
    summary_price,
    uncached_tokens,
)
from history.replay import Circumstances, Outcome
from history.traffic import Traffic
from history.window import WindowRule

TOLERANCE = 0.03
"""How much dearer than the best of the grid the formula's window may be, as replayed."""
SUMMARY_SHARE = 0.05
"""What of a turn's cost a summary should cost at most."""
_SUMMARY_STEP = 50
_LEAST_SUMMARY = 100
_GROWTH = 1.2
_ROUNDS = 8


class Closed(msgspec.Struct, frozen=True):
    """What the formula says of one `min_turns`."""

    min_turns: int
    max_turns: int
    best_step: float
    """c*, before rounding and bounds; infinite where holding tokens costs nothing."""
    facts: Facts
    retention_s: float

    @property
    def r(self) -> float:
        """What holding a token for a turn costs."""
        return holding_price(self.facts.r0, self.facts.p_cold)

    def at(self, max_turns: int) -> "Predicted":
        """What it predicts for another `max_turns`."""
        facts = self.facts
        return Predicted(
            hit=hit_rate(facts, self.min_turns, max_turns),
            uncached=uncached_tokens(facts, self.min_turns, max_turns),
            mean_prompt=mean_prompt(facts, self.min_turns, max_turns),
            cost=cost_per_turn(facts, self.min_turns, max_turns)
            + facts.r0 * facts.turn_tokens * (facts.sigma > 0),
        )


class Predicted(msgspec.Struct, frozen=True):
    """A window as the formula sees it."""

    hit: float
    uncached: float
    """Where nothing was lost."""
    mean_prompt: float
    cost: float
    """With the part of a summary call's price that is the same for every window."""


class Advice(msgspec.Struct, frozen=True):
    """The window to set, and what it rests on."""

    min_turns: int
    max_turns: int
    summary_tokens: int
    by: Literal["formula", "replay"]
    excess: float
    """How much dearer the formula's window is than the grid's best, as replayed."""
    closed: Closed
    chosen: Outcome
    best: Outcome


def closed_form(
    traffic: Traffic,
    gaps: Sequence[float],
    given: Circumstances,
    min_turns: int,
    bounds: tuple[int, int],
    *,
    p_cold: float | None = None,
) -> Closed:
    """The formula's window. `gaps`: all pauses, ascending. `p_cold`, where it is not to be measured.

    Where conversations share a cache, a longer window drives others out sooner: each window is then priced
    with the retention that it leaves.
    """
    facts = _facts(traffic, given, min_turns, traffic.p_cold if p_cold is None else p_cold)
    if not given.cache_tokens or p_cold is not None:
        high = best_max_turns(facts, min_turns, bounds)
        return Closed(min_turns, high, best_step(facts, min_turns), facts, given.retention_s)
    found = [
        _in_shared_cache(facts, traffic, gaps, given, (min_turns, high))
        for high in range(max(bounds[0], min_turns), bounds[1] + 1)
    ]
    return min(found, key=lambda one: cost_per_turn(one.facts, one.min_turns, one.max_turns))


def share_above(gaps: Sequence[float], seconds: float) -> float:
    """The share of the pauses (ascending) that are longer."""
    return 1 - bisect_right(gaps, seconds) / len(gaps) if gaps else 0.0


def grid(min_turns: Iterable[int], bounds: tuple[int, int], also: Iterable[int] = ()) -> list[WindowRule]:
    """The stepped windows to try: for each `min_turns` steps that grow by a fifth, and `also` these ends."""
    rules = []
    for low in sorted(set(min_turns)):
        ends = {high for high in also if high >= low}
        more = 0
        while low + more <= bounds[1]:
            ends.add(low + more)
            more = max(more + 1, int(more * _GROWTH))
        allowed = sorted(high for high in ends if bounds[0] <= high <= bounds[1])
        rules += [WindowRule(min_turns=low, max_turns=high) for high in allowed]
    return rules


def advised(
    closed: Closed, outcomes: Sequence[Outcome], given: Circumstances, *, most_summary: int
) -> Advice:
    """The window to set, of the replayed ones; among them must be the formula's."""
    tried = [
        one for one in outcomes if one.rule.policy == "stepped" and one.rule.min_turns == closed.min_turns
    ]
    formula = next(one for one in tried if one.rule.max_turns == closed.max_turns)
    best = min(tried, key=lambda one: (one.cost, one.rule.max_turns))
    excess = formula.cost / best.cost - 1 if best.cost else 0.0
    chosen = formula if excess <= TOLERANCE else best
    return Advice(
        min_turns=closed.min_turns,
        max_turns=chosen.rule.max_turns,
        summary_tokens=summary_size(closed, chosen, given, most=most_summary),
        by="formula" if chosen is formula else "replay",
        excess=excess,
        closed=closed,
        chosen=chosen,
        best=best,
    )


def summary_size(closed: Closed, chosen: Outcome, given: Circumstances, *, most: int) -> int:
    """The longest summary that costs at most `SUMMARY_SHARE` of a turn, up to `most` tokens.

    A token of it is held in every prompt (r), computed at a cut and written once in a cycle.
    """
    step = chosen.rule.max_turns - chosen.rule.min_turns + 1
    price = closed.r + (1 - closed.r + given.output_price) / step
    fits = int(SUMMARY_SHARE * chosen.cost / price) if price else most
    return max(min(_LEAST_SUMMARY, most), min(most, fits // _SUMMARY_STEP * _SUMMARY_STEP))


def _facts(traffic: Traffic, given: Circumstances, min_turns: int, p_cold: float) -> Facts:
    facts = traffic.facts(
        summary_tokens=given.summary_tokens, r0=given.r0, sigma=0.0, block=given.block, p_cold=p_cold
    )
    if not given.summary_tokens:
        return facts
    sigma = summary_price(
        facts, min_turns, instruction_tokens=given.instruction_tokens, output_price=given.output_price
    )
    return replace(facts, sigma=sigma)


def _in_shared_cache(
    facts: Facts, traffic: Traffic, gaps: Sequence[float], given: Circumstances, window: tuple[int, int]
) -> Closed:
    low, high = window
    priced, retention = replace(facts, p_cold=0.0), given.retention_s
    for _ in range(_ROUNDS):  # what comes cold is written again, and so drives out more
        spared = retention_s(given.cache_tokens, traffic.turns_per_s, priced, low, high)
        retention = min(given.retention_s, spared)
        priced = replace(facts, p_cold=share_above(gaps, retention))
    return Closed(low, high, best_step(priced, low), priced, retention)
