"""When a model is trained again by itself: enough that is new and good, not too often, at a quiet hour. Pure.

Off by default. The hours are those of a clock `utc_offset_h` ahead of UTC, since quiet is when people sleep.
"""

from typing import Literal

import msgspec

_DAY_S = 86_400
_HOUR_S = 3_600

Why = Literal["off", "too_soon", "wrong_hour", "busy", "too_little", "due"]


class OccasionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to train again."""

    enabled: bool = False
    tenant: str = "default"
    """Whose dialogues."""
    model: str = ""
    """The base to train."""
    recipe: str = ""
    suffix: str = ""
    """Of the alias that the versions serve under."""
    min_examples: int = 500
    """Answers that a dataset has to have beyond those of the last one."""
    every_days: float = 7.0
    """At the earliest after the last one was begun."""
    from_hour: int = 2
    to_hour: int = 5
    """From the beginning of the one to the beginning of the other; past midnight if it is the smaller one."""
    utc_offset_h: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.from_hour < 24 and 0 <= self.to_hour <= 24):
            raise ValueError("from_hour is from 0 to 23, to_hour from 0 to 24")
        if self.every_days < 0 or self.min_examples < 1 or abs(self.utc_offset_h) > 14:
            raise ValueError("every_days is at least 0, min_examples at least 1, utc_offset_h from -14 to 14")
        if self.enabled and not (self.model and self.recipe):
            raise ValueError("name the model and the recipe to train by")


class Last(msgspec.Struct, frozen=True):
    """What was done before."""

    began_at: float = 0.0
    """Unix seconds; 0: never."""
    examples: int = 0
    """That its dataset had."""
    is_running: bool = False


def worth_counting(rule: OccasionRule, last: Last, now: float) -> Why:
    """Whether it is time at all, before anybody reads a store to count: `due`, or why not."""
    if not rule.enabled:
        return "off"
    if last.is_running:
        return "busy"
    if last.began_at and now - last.began_at < rule.every_days * _DAY_S:
        return "too_soon"
    hour = int((now + rule.utc_offset_h * _HOUR_S) % _DAY_S // _HOUR_S)
    return "due" if _is_within(hour, rule.from_hour, rule.to_hour) else "wrong_hour"


def worth_training(rule: OccasionRule, last: Last, examples: int, now: float) -> Why:
    """The same, once it is known how many examples there would be."""
    why = worth_counting(rule, last, now)
    if why != "due":
        return why
    return "due" if examples - last.examples >= rule.min_examples else "too_little"


def _is_within(hour: int, begin: int, end: int) -> bool:
    if begin < end:
        return begin <= hour < end
    return hour >= begin or hour < end
