"""The facts of a traffic, measured from its dialogues: lengths, pauses, how many talk at once. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from math import inf

import msgspec

from history.economics import Facts
from history.sketch import Sketch

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_RATE_S = 600.0


class Spread(msgspec.Struct, frozen=True):
    """How a quantity is distributed."""

    count: int
    mean: float
    at: dict[float, float]
    """Its quantiles: by share, the value that so many do not exceed."""

    @property
    def median(self) -> float:
        """Half of them are not more."""
        return self.at[0.5]


class Traffic(msgspec.Struct, frozen=True):
    """What a traffic is like. Tokens, and seconds."""

    dialogues: int
    turns: int
    characters: int
    dialogue_turns: Spread
    persona_tokens: float
    """Of the mean prompt: long dialogues count more often."""
    user_tokens: Spread
    answer_tokens: Spread
    turn_tokens: Spread
    summary_tokens: float
    """Of the newest summaries, where there are any; 0: there are none."""
    gaps: Spread | None
    """Seconds between two turns of a dialogue; None: nobody knows when they were said."""
    retention_s: float
    p_cold: float
    """The share of turns after the first whose pause was longer than the retention."""
    active: float
    """How many conversations have been heard of within the retention, seen from a turn; 0: not known."""
    active_most: int
    turns_per_s: float
    """In the ten minutes before a turn, as the mean turn sees it: busy hours count more; 0: not known."""

    def facts(self, *, summary_tokens: float, r0: float, sigma: float, block: int, p_cold: float) -> Facts:
        """The same as the closed form wants it."""
        return Facts(
            persona_tokens=self.persona_tokens,
            summary_tokens=summary_tokens,
            user_tokens=self.user_tokens.mean,
            turn_tokens=max(1.0, self.turn_tokens.mean),
            answer_tokens=self.answer_tokens.mean,
            sigma=sigma,
            r0=r0,
            p_cold=p_cold,
            block=block,
        )


def measured(sketches: Sequence[Sketch], *, retention_s: float) -> Traffic:
    """The facts of these dialogues. Raises `ValueError` where nobody said anything."""
    turns = sum(sketch.turn_count for sketch in sketches)
    if not turns:
        raise ValueError("there are no turns in these dialogues, so there is nothing to advise on")
    asked = [tokens for sketch in sketches for tokens in sketch.asked]
    answered = [tokens for sketch in sketches for tokens in sketch.answered]
    gaps = sorted(gap for sketch in sketches for gap in sketch.gaps())
    summaries = [sketch.summary for sketch in sketches if sketch.summary]
    active, most, rate = _together(sketches, retention_s)
    return Traffic(
        dialogues=len(sketches),
        turns=turns,
        characters=len({sketch.character or str(sketch.persona_key) for sketch in sketches}),
        dialogue_turns=spread([sketch.turn_count for sketch in sketches]),
        persona_tokens=sum(sketch.persona * sketch.turn_count for sketch in sketches) / turns,
        user_tokens=spread(asked),
        answer_tokens=spread(answered),
        turn_tokens=spread([one + other for one, other in zip(asked, answered, strict=True)]),
        summary_tokens=sum(summaries) / len(summaries) if summaries else 0.0,
        gaps=spread(gaps) if gaps else None,
        retention_s=retention_s,
        p_cold=1 - bisect_right(gaps, retention_s) / len(gaps) if gaps else 0.0,
        active=active,
        active_most=most,
        turns_per_s=rate,
    )


def spread(values: Sequence[float]) -> Spread:
    """The mean and the quantiles of at least one value."""
    found = sorted(values)
    last = len(found) - 1
    return Spread(
        count=len(found),
        mean=sum(found) / len(found),
        at={share: float(found[min(last, int(share * len(found)))]) for share in SHARES},
    )


def _together(sketches: Sequence[Sketch], retention_s: float) -> tuple[float, int, float]:
    """How many conversations are active, as a turn sees it; the most; and turns per second.

    A conversation is active from a turn until the retention has passed without another.
    """
    window = min(retention_s, 86_400.0)
    edges: list[tuple[float, int]] = []
    times = [at for sketch in sketches if sketch.has_times for at in sketch.at]
    for sketch in sketches:
        if not sketch.has_times:
            continue
        began = ended = -inf
        for at in sketch.at:
            if at > ended:
                if ended > -inf:
                    edges += [(began, 1), (ended, -1)]
                began = at
            ended = max(ended, at + window)
        edges += [(began, 1), (ended, -1)]
    if not times:
        return 0.0, 0, 0.0
    edges.sort()
    times.sort()
    mean, most = _seen(edges, times)
    return mean, most, _rate(times)


def _rate(times: Sequence[float]) -> float:
    """Turns per second in the time before a turn, itself included."""
    first = together = 0
    for at, time in enumerate(times):
        while times[first] < time - _RATE_S:
            first += 1
        together += at - first + 1
    span = min(_RATE_S, times[-1] - times[0])
    return together / len(times) / span if span > 0 else 0.0


def _seen(edges: Sequence[tuple[float, int]], times: Sequence[float]) -> tuple[float, int]:
    active = most = seen = 0
    at = 0
    for time in times:
        while at < len(edges) and edges[at][0] <= time:
            active += edges[at][1]
            most = max(most, active)
            at += 1
        seen += active
    return seen / len(times), most
