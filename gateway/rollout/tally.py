"""What is counted of a version: sums that any number of processes may add up. Pure."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import msgspec

BOUNDS: tuple[float, ...] = tuple(0.005 * math.sqrt(2) ** at for at in range(30))
"""Upper bounds of what first tokens took, in seconds: 5 ms to about two minutes."""
_TTFT = "ttft"


class Tally(msgspec.Struct, frozen=True):
    """Sums over what one version did during one trial."""

    answers: int = 0
    errors: int = 0
    """Requests that the version or its node failed; a client's faults, and load, are none."""
    conversations: int = 0
    """That began with it."""
    turns: int = 0
    """Stored with it."""
    returns: int = 0
    """Turns that came after a pause of a day or more."""
    regenerations: int = 0
    """Answers of it that were asked for anew, or whose message was written anew."""
    ups: int = 0
    downs: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    fallbacks: int = 0
    """Requests that were to get it and got another one: no node had it."""
    ttft: tuple[int, ...] = ()
    """First tokens of streamed answers, by `BOUNDS`, and those beyond."""


COUNTERS = frozenset(Tally.__struct_fields__) - {_TTFT}
_PLACES = len(BOUNDS) + 1


def ttft_counter(seconds: float) -> str:
    """The counter that a first token after so long adds to."""
    return f"{_TTFT}{bisect_left(BOUNDS, seconds)}"


def tally_of(counts: Mapping[str, int]) -> Tally:
    """The tally of counters by name; what a newer program counts beside is left out."""
    ttft = [0] * _PLACES
    for name, count in counts.items():
        place = name.removeprefix(_TTFT)
        if place != name and place.isdecimal() and int(place) < _PLACES:
            ttft[int(place)] += max(0, count)
    known = {name: max(0, counts[name]) for name in COUNTERS if name in counts}
    return Tally(**known, ttft=tuple(ttft))


def quantile(ttft: Sequence[int], share: float, *, is_upper: bool = True) -> float:
    """The time within which so large a share came, in seconds: an end of its bucket. 0 of nothing."""
    whole, reached = sum(ttft), 0
    if not whole:
        return 0.0
    for at, count in enumerate(ttft):
        reached += count
        if reached >= share * whole:
            return BOUNDS[min(at, len(BOUNDS) - 1)] if is_upper else (BOUNDS[at - 1] if at else 0.0)
    return BOUNDS[-1]


def report_of(tally: Tally) -> dict[str, float | int | None]:
    """The tally as an operator reads it."""
    counts: dict[str, float | int | None] = {name: getattr(tally, name) for name in sorted(COUNTERS)}
    asked, rated = tally.answers + tally.errors, tally.ups + tally.downs
    return counts | {
        "error_share": _ratio(tally.errors, asked),
        "thumbs_down_share": _ratio(tally.downs, rated),
        "turns_per_conversation": _ratio(tally.turns, tally.conversations),
        "regenerations_per_turn": _ratio(tally.regenerations, tally.turns),
        "cached_share": _ratio(tally.cached_tokens, tally.prompt_tokens),
        "ttft_p50_s": _seconds(tally, 0.5),
        "ttft_p90_s": _seconds(tally, 0.9),
    }


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _seconds(tally: Tally, share: float) -> float | None:
    return round(quantile(tally.ttft, share), 4) if any(tally.ttft) else None
