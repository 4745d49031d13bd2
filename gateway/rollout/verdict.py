"""Whether a version does better or worse than the one before it: the rule, as a function of counts. Pure.

Two counts of the same time are compared, and a difference counts only where chance hardly makes it: the
version's rate is taken at the lower end of its Wilson interval (Wilson 1927, two standard deviations), the
other one's at the upper end. Until there are enough answers, nothing is decided.
"""

import math
from typing import Literal

import msgspec

from gateway.rollout.tally import Tally, quantile

Action = Literal["wait", "widen", "back"]

_DEVIATIONS = 2.0
_P90 = 0.9


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a version goes on by itself, and when it is taken back by itself."""

    min_answers: int = 200
    """Answers of the version, errors included, before anything is decided."""
    min_ratings: int = 20
    """Ratings of the version before they say anything."""
    error_excess: float = 0.02
    """How much larger than before the share of errors may be."""
    ttft_ratio: float = 1.5
    """How many times as long as before the first token may take, at the 90th percentile."""
    down_excess: float = 0.1
    """How much larger than before the share of thumbs down may be."""
    hold_s: float = 3600.0
    """How long a step lasts at least, before the rule goes on to the next."""
    widens: bool = False
    """Go on to the next step by rule. Off: by command only; back goes by rule in any case."""


class Verdict(msgspec.Struct, frozen=True):
    """What is to be done, and why."""

    action: Action
    why: str


def verdict(now: Tally, before: Tally, rule: Rule, *, step_s: float) -> Verdict:
    """What becomes of a version with these counts, `step_s` seconds after its step began.

    Without a single answer of the version before, that one counts as flawless and its speed as unknown.
    """
    asked = now.answers + now.errors
    if asked < rule.min_answers:
        return Verdict("wait", f"{asked} of {rule.min_answers} answers")
    for problem in (_errors(now, before, rule), _downs(now, before, rule), _ttft(now, before, rule)):
        if problem:
            return Verdict("back", problem)
    if not rule.widens:
        return Verdict("wait", "no worse than before; widen it when you like")
    if step_s < rule.hold_s:
        return Verdict("wait", f"no worse than before; {rule.hold_s - step_s:.0f} s of this step to go")
    return Verdict("widen", f"no worse than before after {asked} answers")


def lower(part: int, whole: int) -> float:
    """The least share that chance would hardly lift to `part` of `whole`; 0 of nothing."""
    return _wilson(part, whole, -_DEVIATIONS) if whole else 0.0


def upper(part: int, whole: int) -> float:
    """The largest share that chance would hardly lower to `part` of `whole`; 0 of nothing."""
    return _wilson(part, whole, _DEVIATIONS) if whole else 0.0


def _wilson(part: int, whole: int, z: float) -> float:
    share, square = part / whole, z * z
    middle = share + square / (2 * whole)
    spread = math.sqrt(share * (1 - share) / whole + square / (4 * whole * whole))
    found = (middle + z * spread) / (1 + square / whole)
    return min(1.0, max(0.0, found))


def _errors(now: Tally, before: Tally, rule: Rule) -> str:
    asked, asked_before = now.answers + now.errors, before.answers + before.errors
    worst = upper(before.errors, asked_before) + rule.error_excess
    if lower(now.errors, asked) <= worst:
        return ""
    was = f"{before.errors} of {asked_before}"
    return f"{now.errors} of {asked} requests failed, {was} with the version before"


def _downs(now: Tally, before: Tally, rule: Rule) -> str:
    rated, rated_before = now.ups + now.downs, before.ups + before.downs
    if rated < rule.min_ratings:
        return ""
    if lower(now.downs, rated) <= upper(before.downs, rated_before) + rule.down_excess:
        return ""
    was = f"{before.downs} of {rated_before}"
    return f"{now.downs} of {rated} ratings are thumbs down, {was} with the version before"


def _ttft(now: Tally, before: Tally, rule: Rule) -> str:
    if min(sum(now.ttft), sum(before.ttft)) < rule.min_answers:
        return ""
    late, was = quantile(now.ttft, _P90, is_upper=False), quantile(before.ttft, _P90, is_upper=True)
    if late <= was * rule.ttft_ratio:
        return ""
    return f"one in ten first tokens takes longer than {late:.3g} s, {was:.3g} s with the version before"
