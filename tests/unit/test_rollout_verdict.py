"""The rule: enough answers, a difference that chance does not make, and the same for the same counts."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.rollout.tally import BOUNDS, Tally, quantile, report_of, tally_of, ttft_counter
from gateway.rollout.verdict import Rule, lower, upper, verdict

RULE = Rule(min_answers=100, min_ratings=10, hold_s=60, widens=True)
counts = st.integers(0, 5000)
GOOD = Tally(answers=1000, errors=5, ups=80, downs=20)


def ttft(seconds: float, number: int) -> tuple[int, ...]:
    return tally_of({ttft_counter(seconds): number}).ttft


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    times = st.lists(st.integers(0, 500), min_size=31, max_size=31)
    return Tally(
        answers=draw(counts),
        errors=draw(counts),
        ups=draw(counts),
        downs=draw(counts),
        ttft=tuple(draw(times)),
    )


@given(tallies(), tallies(), st.floats(0, 1000))
def test_nothing_is_decided_of_a_few_answers(now: Tally, before: Tally, step_s: float) -> None:
    """However bad they are."""
    few = Rule(min_answers=now.answers + now.errors + 1)
    assert "wait" == verdict(now, before, few, step_s=step_s).action


@given(tallies(), st.floats(0, 1000))
def test_a_version_is_never_worse_than_itself(same: Tally, step_s: float) -> None:
    """Equal counts are no reason to go back."""
    assert "back" != verdict(same, same, RULE, step_s=step_s).action


@given(tallies(), tallies(), st.integers(1, 1000), st.floats(0, 1000))
def test_more_errors_never_help(now: Tally, before: Tally, more: int, step_s: float) -> None:
    """What was taken back with some is taken back with more of them."""
    worse = Tally(now.answers, now.errors + more, ups=now.ups, downs=now.downs, ttft=now.ttft)
    if verdict(now, before, RULE, step_s=step_s).action == "back":
        assert "back" == verdict(worse, before, RULE, step_s=step_s).action


@given(tallies(), tallies(), st.floats(0, 1000))
def test_widening_needs_its_time_and_leave(now: Tally, before: Tally, step_s: float) -> None:
    """By rule only where that is wanted, and not before the step has lasted."""
    by_hand = Rule(min_answers=100, min_ratings=10, hold_s=60)
    assert "widen" != verdict(now, before, by_hand, step_s=step_s).action
    if step_s < RULE.hold_s:
        assert "widen" != verdict(now, before, RULE, step_s=step_s).action


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_interval_holds_the_share(part: int, other: int) -> None:
    """And lies between 0 and 1."""
    whole = part + other
    if whole:
        assert 0 <= lower(part, whole) <= part / whole + 1e-9
        assert part / whole - 1e-9 <= upper(part, whole) <= 1


def test_what_is_clearly_worse_is_taken_back_with_the_reason() -> None:
    """Errors, thumbs down and slow first tokens, each by itself."""
    errors = verdict(Tally(answers=150, errors=50), GOOD, RULE, step_s=1)
    downs = verdict(Tally(answers=200, ups=20, downs=80), GOOD, RULE, step_s=1)
    slow = verdict(
        Tally(answers=200, ttft=ttft(2.0, 200)), Tally(answers=200, ttft=ttft(0.3, 200)), RULE, step_s=1
    )

    assert ("back", "50 of 200 requests failed, 5 of 1005 with the version before") == (
        errors.action,
        errors.why,
    )
    assert ("back", "80 of 100 ratings are thumbs down, 20 of 100 with the version before") == (
        downs.action,
        downs.why,
    )
    assert "back" == slow.action
    assert "first tokens" in slow.why


def test_noise_is_no_reason() -> None:
    """A little more of everything, and few ratings."""
    noisy = Tally(answers=195, errors=3, ups=4, downs=5, ttft=ttft(0.36, 195))
    before = Tally(answers=1000, errors=5, ups=80, downs=20, ttft=ttft(0.3, 1000))

    assert "widen" == verdict(noisy, before, RULE, step_s=61).action
    assert "wait" == verdict(noisy, before, RULE, step_s=59).action


@given(st.lists(st.floats(0.001, 300), min_size=1, max_size=50), st.sampled_from([0.5, 0.9]))
def test_a_quantile_is_within_its_bucket(seconds: list[float], share: float) -> None:
    """Between the ends that are told; beyond the last bound, that."""
    tally = tally_of(
        {name: sum(ttft_counter(s) == name for s in seconds) for name in map(ttft_counter, seconds)}
    )
    at = sorted(seconds)[max(0, -(-int(share * 100) * len(seconds) // 100) - 1)]

    assert quantile(tally.ttft, share, is_upper=False) <= at + 1e-9
    if at <= BOUNDS[-1]:
        assert at <= quantile(tally.ttft, share) + 1e-9


def test_a_report_says_nothing_of_what_nobody_counted() -> None:
    """None, not zero; what a newer program counts is left out."""
    told = report_of(tally_of({"answers": 3, "brightness": 9, "ttft99": 4}))

    assert (3, 0.0, None, None) == tuple(
        told[name] for name in ("answers", "error_share", "thumbs_down_share", "ttft_p50_s")
    )
