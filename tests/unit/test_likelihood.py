"""Quality against N: the knee, its interval, and what is left out."""

import random

import pytest

from history.likelihood import RESAMPLES, Scored, curves

TURNS = (1, 2, 3, 5, 8, 12)


def replies(
    count: int, *, knee: int, character: str = "ada", noise: float = 0.0, seed: int = 0
) -> list[Scored]:
    """Replies of as many dialogues whose likelihood grows up to `knee` turns."""
    dice = random.Random(seed)
    return [
        Scored(
            dialogue=f"{character}{number}",
            turn=20,
            character=character,
            tokens=50,
            nats={n: 50 * (-3 + 0.2 * min(n, knee) + dice.gauss(0, noise)) for n in TURNS},
        )
        for number in range(count)
    ]


def test_the_knee_is_where_more_turns_do_not_help() -> None:
    (curve,) = curves(replies(10, knee=5))
    assert (curve.knee, curve.knee_low, curve.knee_high) == (5, 5, 5)
    assert [one.turns for one in curve.points] == list(TURNS)
    assert curve.points[0].mean == pytest.approx(-2.8)
    assert curve.points[0].behind == pytest.approx(0.8)
    assert curve.points[3].behind == 0
    assert not curve.is_at_the_end


def test_a_tolerance_of_all_that_can_be_gained_needs_one_turn() -> None:
    (curve,) = curves(replies(10, knee=5), tolerance=1.0)
    assert curve.knee == 1


def test_what_still_grows_at_the_end_is_said() -> None:
    (curve,) = curves(replies(10, knee=12))
    assert curve.is_at_the_end


def test_noise_widens_the_interval_and_the_same_seed_gives_the_same() -> None:
    noisy = replies(12, knee=5, noise=0.3)
    (one,), (again,), (other,) = curves(noisy), curves(noisy), curves(noisy, seed=1)
    assert one == again
    assert one.points[2].low < one.points[2].mean < one.points[2].high
    assert one.knee_low <= one.knee <= one.knee_high
    assert (one.points[2].low, one.points[2].high) != (other.points[2].low, other.points[2].high)
    assert RESAMPLES >= 1000


def test_a_curve_for_all_and_one_for_each_character_that_has_enough() -> None:
    scored = [*replies(10, knee=3), *replies(9, knee=8, character="bo"), *replies(3, knee=1, character="cy")]
    every, ada, bo = curves(scored)
    assert (every.character, ada.character, bo.character) == ("", "ada", "bo")
    assert (ada.knee, bo.knee) == (3, 8)
    assert every.replies == 22


def test_windows_that_did_not_fit_the_model_are_left_out_for_all() -> None:
    """Long windows fit few replies; the replies that lack a shorter one are left out."""
    whole = replies(10, knee=5)
    short = [
        Scored(one.dialogue, 1, one.character, one.tokens, {n: one.nats[n] for n in TURNS if n < 12})
        for one in whole
    ]
    (curve,) = curves([*whole[:4], *short])
    assert [one.turns for one in curve.points] == [1, 2, 3, 5, 8]
    assert curve.replies == 14


def test_too_few_dialogues_make_no_curve() -> None:
    assert curves(replies(3, knee=5)) == []
    assert curves([]) == []
