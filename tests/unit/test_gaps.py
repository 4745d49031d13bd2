"""The histogram of pauses: what it says is what was put in, within a bucket."""

import math

from hypothesis import given
from hypothesis import strategies as st

from history.gaps import Gaps

PAUSES = st.lists(st.floats(min_value=0.02, max_value=1e6), min_size=1, max_size=200)
BUCKET = 1.25


def filled(pauses: list[float]) -> Gaps:
    gaps = Gaps()
    for pause in pauses:
        gaps.add(pause)
    return gaps


@given(PAUSES, st.floats(min_value=0.02, max_value=1e6))
def test_the_share_beyond_is_that_of_the_pauses_within_a_bucket(pauses: list[float], at: float) -> None:
    longer = sum(pause > at * BUCKET for pause in pauses) / len(pauses)
    not_shorter = sum(pause > at / BUCKET for pause in pauses) / len(pauses)
    assert longer - 1e-9 <= filled(pauses).share_beyond(at) <= not_shorter + 1e-9


@given(PAUSES)
def test_the_whole_area_is_the_mean_pause_within_a_bucket(pauses: list[float]) -> None:
    mean = sum(pauses) / len(pauses)
    assert mean / BUCKET <= filled(pauses).area(1e9) <= mean * BUCKET


@given(PAUSES, st.floats(min_value=0.02, max_value=1e6), st.floats(min_value=1.0, max_value=100.0))
def test_a_longer_time_never_has_a_smaller_area_nor_a_larger_share_beyond(
    pauses: list[float], at: float, longer: float
) -> None:
    gaps = filled(pauses)
    assert gaps.area(at) <= gaps.area(at * longer) + 1e-9
    assert gaps.share_beyond(at) >= gaps.share_beyond(at * longer) - 1e-9


@given(PAUSES, st.floats(min_value=0.02, max_value=1e6))
def test_the_time_of_an_area_has_that_area(pauses: list[float], at: float) -> None:
    gaps = filled(pauses)
    found = gaps.time_of(gaps.area(at))
    assert math.isinf(found) or math.isclose(gaps.area(found), gaps.area(at), rel_tol=1e-6)
    assert math.isinf(found) == (at >= max(pauses) * BUCKET or gaps.share_beyond(at) == 0)


def test_nothing_seen_says_nothing() -> None:
    gaps = Gaps()
    assert (gaps.share_beyond(1.0), gaps.area(1e6)) == (0.0, 0.0)
    assert math.isinf(gaps.time_of(0.0))


def test_a_clock_that_was_set_back_counts_as_no_pause() -> None:
    assert filled([-3600.0]).share_beyond(0.02) == 0.0


def test_what_was_seen_long_ago_weighs_less() -> None:
    gaps = filled([10.0] * 40_000 + [1000.0] * 40_000)
    assert gaps.share_beyond(100.0) > 0.6
    assert gaps.count == 80_000
