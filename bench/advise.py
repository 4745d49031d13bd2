"""Whether `friendo advise` advises well: on made-up traffic, against every window of a grid.

Advice is taken from some people's dialogues and judged on others' (another seed): the window that it names is
replayed there beside every window of the grid. Regret is how much dearer it is than the best of them, which
is chosen with the judges' own dialogues in hand. Three kinds of people, who pause for seconds, minutes or
hours; prices of a cached token from 0.02 to 0.3; caches without end and for half of the working set. Printed
are the formula alone and the advice (the formula, or the replay where they disagree by more than 3 %), both
without looking at the judges. Ends with 1 if an advice costs more than 7 % too much.
Run it as `python -m bench.advise`; under two minutes on one core.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from math import inf

import msgspec

from gateway.advise.generator import People, generated
from history.advice import Advice, advised, closed_form, grid
from history.replay import Circumstances, in_order, replay
from history.sketch import Sketch
from history.traffic import Traffic, measured
from history.window import WindowRule

ALLOWED = 0.07
BOUNDS = (1, 160)
PAUSES = {
    "short": People(gap_median=20.0, gap_sigma=0.8, away_median=300.0, away_sigma=0.5),
    "companions": People(),
    "long": People(gap_median=900.0, gap_sigma=1.2),
}
PRICES = (0.02, 0.1, 0.3)
RETENTION_S = 600.0


class Judged(msgspec.Struct, frozen=True):
    """One advice, and what it cost the judges."""

    pauses: str
    seed: int
    given: Circumstances
    advice: Advice
    p_cold: float
    best_turns: int
    """The best `max_turns` of the grid, for the judges."""
    formula_regret: float
    regret: float


class Sample:
    """Some people's dialogues, in order, with their facts."""

    def __init__(self, people: People, seed: int) -> None:
        self.sketches: list[Sketch] = list(generated(people, seed))
        self.order = in_order(self.sketches)
        self.traffic: Traffic = measured(self.sketches, retention_s=RETENTION_S)
        self.gaps = sorted(gap for sketch in self.sketches for gap in sketch.gaps())

    def costs(self, rules: Sequence[WindowRule], given: Circumstances) -> dict[int, float]:
        """What each window costs a turn, by its `max_turns`."""
        return {rule.max_turns: replay(self.sketches, self.order, rule, given).cost for rule in rules}


def advice_of(sample: Sample, given: Circumstances, min_turns: int) -> Advice:
    """What `friendo advise` says of this traffic."""
    closed = closed_form(sample.traffic, sample.gaps, given, min_turns, BOUNDS)
    rules = grid([min_turns], BOUNDS, also=[closed.max_turns])
    outcomes = [replay(sample.sketches, sample.order, rule, given) for rule in rules]
    return advised(closed, outcomes, given, most_summary=400)


def judged(pauses: str, seed: int, given: Circumstances, *, people: People, min_turns: int = 20) -> Judged:
    """Advice from one half of the people, its cost for the other half."""
    asked, judges = Sample(people, 2 * seed), Sample(people, 2 * seed + 1)
    advice = advice_of(asked, given, min_turns)
    rules = grid([min_turns], BOUNDS, also=[advice.max_turns, advice.closed.max_turns])
    costs = judges.costs(rules, given)
    best = min(costs, key=costs.__getitem__)
    return Judged(
        pauses=pauses,
        seed=seed,
        given=given,
        advice=advice,
        p_cold=advice.closed.facts.p_cold,
        best_turns=best,
        formula_regret=costs[advice.closed.max_turns] / costs[best] - 1,
        regret=costs[advice.max_turns] / costs[best] - 1,
    )


def trials(seeds: int, dialogues: int) -> Iterator[Judged]:
    """Every kind of people, price and cache, with every seed."""
    for pauses, kind in PAUSES.items():
        people = msgspec.structs.replace(kind, dialogues=dialogues)
        for seed in range(seeds):
            for r0 in PRICES:
                yield judged(pauses, seed, _given(r0), people=people)
            yield judged(f"{pauses}, half cache", seed, _given(0.1, _half(people, seed)), people=people)


def _given(r0: float, cache_tokens: int = 0) -> Circumstances:
    retention = inf if cache_tokens else RETENTION_S
    return Circumstances(r0=r0, cache_tokens=cache_tokens, retention_s=retention)


def _half(people: People, seed: int) -> int:
    """Half of what the windows of everybody who is active take at 20 to 40 turns."""
    traffic = Sample(people, 2 * seed).traffic
    own = 30 * traffic.turn_tokens.mean + 200
    return int((traffic.active * own + people.characters * traffic.persona_tokens) / 2)


def print_row(one: Judged) -> None:
    """What was advised, and what it cost."""
    advice = one.advice
    print(
        f"{one.pauses:<24}{one.seed:>5}{one.given.r0:>6.2f}{one.p_cold:>8.3f}{advice.closed.max_turns:>9}"
        f"{advice.max_turns:>9}{one.best_turns:>6}{100 * one.formula_regret:>10.2f}{100 * one.regret:>9.2f}"
        f"   {advice.by}"
    )


def main() -> int:
    """Print the table; 1 if an advice was too dear."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dialogues", type=int, default=100)
    options = parser.parse_args()
    print(
        f"min_turns 20, {options.dialogues} dialogues asked and as many judging, "
        f"seeds 0 to {options.seeds - 1}, KV kept {RETENTION_S:.0f} s or by a cache of half the need; "
        "max_turns and regret in %\n"
    )
    print("pauses                   seed    r0  p_cold  formula   advice  best   formula   advice   by")
    found = []
    for one in trials(options.seeds, options.dialogues):
        print_row(one)
        found.append(one)
    worst = max(one.regret for one in found)
    formula = max(one.formula_regret for one in found)
    print(f"\nworst regret: {100 * worst:.2f} % of the advice, {100 * formula:.2f} % of the formula alone")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
