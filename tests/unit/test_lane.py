"""What a node's lane says of the wait there."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.lane import Lane
from gateway.routing.pace import Pace, Rate

RATE = 2000.0


def settled(lane: Lane, now: float) -> Lane:
    lane.settle(Pace(), now, is_full=False, running=0)
    return lane


steps = st.lists(
    st.tuples(st.sampled_from(["sent", "told", "left", "polled"]), st.integers(1, 9000), st.floats(0, 5)),
    max_size=40,
)


@given(steps)
def test_the_wait_is_never_negative_and_nothing_is_left_owed(what: list[tuple[str, int, float]]) -> None:
    """Whatever comes and goes in whichever order, an empty lane owes nothing."""
    lane, now, under_way = Lane(), 100.0, []
    for number, (kind, amount, seconds) in enumerate(what):
        now += seconds
        if kind in ("sent", "told"):
            lane.sent(number, amount, now, tells=kind == "told")
            under_way.append(number)
        elif kind == "left" and under_way:
            lane.left(under_way.pop(amount % len(under_way)), now)
        elif kind == "polled":
            lane.polled(amount % 50, amount % 7, now)
        settled(lane, now)
        assert lane.wait(now) >= 0
        assert lane.pending >= 0
        assert math.isfinite(lane.wait(now))
    for number in under_way:
        lane.left(number, now)
    lane.polled(0, 0, now)
    assert settled(lane, now).pending == 0
    assert lane.wait(now) == 0
    assert lane.is_alone()


def test_what_is_computed_meanwhile_is_not_waited_for() -> None:
    """The wait falls with time, down to what stands behind the prompt in work."""
    lane = Lane()
    lane.sent(1, 4000, 100.0, tells=True)
    lane.sent(2, 2000, 100.0, tells=True)
    settled(lane, 100.0)

    assert [3.0, 2.0] == pytest.approx([lane.wait(100.0), lane.wait(101.0)])
    assert lane.wait(102.5) == pytest.approx(1.0)


def test_what_waited_before_says_how_long_one_waits() -> None:
    """The next in line has waited 1.5 s more than it takes itself: so will who comes now, at least."""
    lane = Lane()
    lane.sent(1, 4000, 100.0, tells=True)
    lane.sent(2, 2000, 100.0, tells=True)
    lane.left(1, 102.5)

    assert settled(lane, 102.5).wait(102.5) == pytest.approx(1.5)


def test_an_overdue_answer_makes_the_wait_grow() -> None:
    """The oldest prompt should have been answered a minute ago."""
    lane = Lane()
    lane.sent(1, 2000, 100.0, tells=True)

    assert settled(lane, 100.0).wait(161.0) == pytest.approx(60.0)


def test_prompts_that_tell_only_their_end_count_as_computed_in_time() -> None:
    """Else an answer of a minute would look like a prompt of a minute."""
    lane = Lane()
    lane.sent(1, 2000, 100.0, tells=False)
    lane.sent(2, 4000, 100.5, tells=True)

    assert settled(lane, 102.0).pending == 4000
    assert lane.wait(102.0) == pytest.approx(1.0)

    lane.sent(3, 1000, 102.0, tells=False)
    lane.sent(4, 1000, 102.0, tells=True)
    lane.left(4, 103.0)
    assert (
        lane.pending == 4000
    )  # the third was sent before the fourth, so it is done; the second tells itself


def test_strangers_in_the_queue_cost_their_usual_size() -> None:
    """Requests of other replicas are known from the node's own metrics."""
    lane = Lane()
    lane.sent(1, 1000, 100.0, tells=True)
    lane.polled(5, 3, 100.0)
    settled(lane, 100.0)

    assert lane.foreign == 4
    assert lane.aside == pytest.approx(3 * 100 * 1e-5)
    assert lane.wait(100.0) == pytest.approx(0.5 + 4 * 500 / RATE)
    assert lane.wait(100.6) == pytest.approx(0.4 + 0.1)


def test_unknown_load_is_no_load_of_strangers() -> None:
    """An engine without metrics."""
    lane = Lane()
    lane.polled(None, None, 1.0)

    assert settled(lane, 1.0).aside == 0


def test_rates_are_learned_where_they_mean_something() -> None:
    """Short prompts and those that waited say nothing, unless they show that the node is faster."""
    pace, known = Pace(), Rate()

    assert pace.learned_rate(known, 100, 0.01, was_alone=True) == known
    assert pace.learned_rate(known, 1000, 10.0, was_alone=False) == known
    assert pace.learned_rate(known, 1000, 0.0, was_alone=True) == known
    assert pace.learned_rate(known, 3000, 1.0, was_alone=False) == Rate(seen=3000.0, samples=1)
    assert pace.rate == 3000.0


def test_a_node_of_which_little_is_known_is_taken_for_the_others() -> None:
    """And after enough measurements for itself."""
    pace, slow = Pace(), Rate()
    for _ in range(200):
        pace.learned_rate(Rate(), 8000, 1.0, was_alone=True)
    assert pace.rate_of(Rate()) == pytest.approx(8000)
    for _ in range(200):
        slow = pace.learned_rate(slow, 1000, 1.0, was_alone=True)

    assert pace.rate_of(slow) < 1500


@given(st.lists(st.floats(0, 100_000), min_size=2, max_size=30))
def test_recent_tokens_weigh_more_and_sums_stay_finite(gaps: list[float]) -> None:
    """Five minutes later a token weighs e times as much, whatever was divided out meanwhile."""
    pace, now, weights = Pace(), 0.0, []
    for gap in gaps:
        now += gap
        weight, divisor = pace.scale(now)
        weights = [one / divisor for one in weights]
        weights.append(weight)
        assert 0 < weight < 1e13

    for earlier, later, gap in zip(weights, weights[1:], gaps[1:], strict=False):
        if gap < 6000:
            assert earlier == pytest.approx(later * math.exp(-gap / 300), rel=1e-6, abs=1e-300)


@given(st.lists(st.floats(-7200, 7200), min_size=2, max_size=30))
def test_what_comes_after_a_clock_was_set_weighs_no_less(jumps: list[float]) -> None:
    """Else the load bound would stand still for as long as the clock was set back."""
    pace, now = Pace(), 1e9
    before, _ = pace.scale(now)
    for jump in jumps:
        now += jump
        weight, divisor = pace.scale(now)
        assert weight >= before / divisor * 0.999
        before = weight


def polls(lane: Lane, *told: tuple[float, int | None, bool]) -> Lane:
    """Polls at these times: the progress that the node tells, and whether something runs there."""
    for now, progress, is_running in told:
        lane.progressed(progress, now, is_running=is_running)
        settled(lane, now)
    return lane


def test_a_node_that_computes_nothing_looks_worse_by_the_second() -> None:
    """Of whole answers nothing else tells it; one that goes on, or has nothing to do, is as good as ever."""
    lane = Lane()
    lane.sent(1, 200, 100.0, tells=False)
    polls(lane, (101.0, 7, True), (103.0, 7, True), (105.0, 7, True))
    assert [7.0, 17.0] == [lane.wait(110.0), lane.wait(120.0)]

    for last in [(121.0, 8, True), (121.0, None, True), (121.0, 7, False)]:
        assert polls(Lane(), (101.0, 7, True), (103.0, 7, True), last).wait(130.0) == 0


def test_a_prompt_that_came_just_before_a_poll_says_nothing() -> None:
    """Nor does one that needs long, before it should be done."""
    assert polls(Lane(), (100.0, 7, False), (102.0, 7, True)).wait(110.0) == 0
    lane = Lane()
    lane.sent(1, 20_000, 100.0, tells=True)
    polls(lane, (101.0, 7, True), (103.0, 7, True), (105.0, 7, True))
    assert [4.0, 1.0] == [lane.wait(106.0), lane.wait(109.0)]
