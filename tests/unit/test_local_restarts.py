"""When a part of the one-machine stack is started again, and when no longer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.local.restarts import AT_MOST, WITHIN_S, delay_before_restart


def test_the_wait_doubles_with_every_death_of_a_minute() -> None:
    """A part that dies at once is not started in a tight loop."""
    deaths = (0.0, 1.0, 2.0, 3.0, 4.0)
    delays = [delay_before_restart(deaths[: count + 1]) for count in range(len(deaths))]
    assert pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2]) == delays


def test_the_sixth_death_within_a_minute_is_the_last() -> None:
    """Five restarts that did not help are enough."""
    assert delay_before_restart((0.0, 1.0, 2.0, 3.0, 4.0, 5.0)) is None


@given(st.lists(st.integers(0, 10**6), min_size=1).map(sorted), st.integers(int(WITHIN_S), 1000))
def test_deaths_more_than_a_minute_ago_do_not_count(old: list[int], pause: int) -> None:
    """A part that ran for a minute has earned a fresh start, whatever was before."""
    assert delay_before_restart((*old, old[-1] + pause)) == delay_before_restart((0.0,))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20).map(sorted))
def test_it_gives_up_exactly_when_more_than_five_deaths_lie_within_a_minute(deaths: list[int]) -> None:
    """The bound holds for any history of deaths."""
    recent = [at for at in deaths if deaths[-1] - at < WITHIN_S]
    assert (len(recent) > AT_MOST) == (delay_before_restart(tuple(deaths)) is None)
