"""When a model is trained again by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.occasion import Last, OccasionRule, worth_counting, worth_training

HOUR, DAY = 3600.0, 86_400.0
NIGHT = 1_000 * DAY + 3 * HOUR
RULE = OccasionRule(enabled=True, model="base", recipe="lora")


def test_by_default_never() -> None:
    """Nobody trains by surprise."""
    assert "off" == worth_training(OccasionRule(), Last(), 10**6, NIGHT)


@pytest.mark.parametrize(
    ("last", "examples", "now", "why"),
    [
        (Last(), 500, NIGHT, "due"),
        (Last(), 499, NIGHT, "too_little"),
        (Last(), 500, NIGHT + 2 * HOUR, "wrong_hour"),
        (Last(NIGHT - 6 * DAY, 100), 9999, NIGHT, "too_soon"),
        (Last(NIGHT - 7 * DAY, 100), 600, NIGHT, "due"),
        (Last(NIGHT - 7 * DAY, 101), 600, NIGHT, "too_little"),
        (Last(NIGHT - 70 * DAY, 0, is_running=True), 600, NIGHT, "busy"),
    ],
)
def test_enough_that_is_new_not_too_often_at_a_quiet_hour(
    last: Last, examples: int, now: float, why: str
) -> None:
    """The reason is the first thing that is missing."""
    assert why == worth_training(RULE, last, examples, now)


@given(st.integers(0, 23), st.integers(0, 24), st.integers(-14, 14), st.floats(0, 10**9))
def test_hours_are_those_of_its_own_clock_past_midnight_too(
    begin: int, end: int, offset: int, now: float
) -> None:
    """What is inside by one clock is inside by every other that is told its offset."""
    rule = OccasionRule(
        enabled=True, model="m", recipe="r", from_hour=begin, to_hour=end, utc_offset_h=offset
    )
    hour = int(now // HOUR + offset) % 24
    hours = {(begin + n) % 24 for n in range((end - begin) % 24 or (24 if begin == end else 0))}
    hours |= set(range(begin, 24)) if end == 24 else set()

    assert (hour in hours) == (worth_counting(rule, Last(), now) == "due")


@pytest.mark.parametrize(
    "wrong",
    [
        {"from_hour": 24},
        {"to_hour": -1},
        {"every_days": -1},
        {"min_examples": 0},
        {"utc_offset_h": 15},
        {"enabled": True},
    ],
)
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    """Before anything waits for it."""
    with pytest.raises(ValueError, match=r"hour|least|name"):
        OccasionRule(**wrong)  # type: ignore[arg-type]
