"""The window: how many turns a prompt shows."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.window import WindowRule, advance, exceeds_ceiling, stateless_cut, step

bounds = st.tuples(st.integers(1, 30), st.integers(0, 30)).map(lambda pair: (pair[0], sum(pair)))
token_counts = st.lists(st.integers(0, 400), max_size=120)


def stepped(low: int, high: int, ceiling: int = 0) -> WindowRule:
    return WindowRule(policy="stepped", min_turns=low, max_turns=high, max_tokens=ceiling)


def test_default_cuts_from_forty_one_turns_back_to_twenty() -> None:
    """The documented example: 20 to 40 turns, cut in steps of 21."""
    rule = WindowRule()

    assert [stateless_cut(n, rule) for n in (0, 40, 41, 61, 62)] == [0, 0, 21, 21, 42]


@given(bounds, st.integers(0, 500))
def test_stateless_window_stays_between_its_bounds(bound: tuple[int, int], turns: int) -> None:
    """Never more than `max_turns`, and never fewer than `min_turns` once that many exist."""
    rule = stepped(*bound)

    shown = turns - stateless_cut(turns, rule)

    assert min(turns, rule.min_turns) <= shown <= rule.max_turns


@given(bounds, st.integers(0, 300))
def test_stored_cut_moves_exactly_like_the_stateless_one(bound: tuple[int, int], turns: int) -> None:
    """A conversation and a client that sends its whole dialogue get the same window."""
    rule, cut = stepped(*bound), 0

    for count in range(turns + 1):
        cut = advance(cut, [0] * (count - cut), rule)

    assert stateless_cut(turns, rule) == cut


@given(bounds, st.integers(0, 100), token_counts, st.integers(1, 4000))
def test_cut_never_moves_back(bound: tuple[int, int], cut: int, tokens: list[int], ceiling: int) -> None:
    """Whatever the tokens, what left the window stays out, and no turn is cut that does not exist."""
    moved = advance(cut, tokens, stepped(*bound, ceiling))

    assert cut <= moved <= cut + len(tokens)


@given(bounds, token_counts, st.integers(1, 4000))
def test_newest_turns_stay_unless_they_exceed_the_ceiling(
    bound: tuple[int, int], tokens: list[int], ceiling: int
) -> None:
    """The last `min_turns` are shown, or as many of them as fit."""
    rule = stepped(*bound, ceiling)

    shown = tokens[advance(0, tokens, rule) :]

    if exceeds_ceiling(tokens, rule):
        one_more = tokens[len(tokens) - len(shown) - 1 :]
        assert sum(shown) <= ceiling < sum(one_more)
    else:
        assert len(shown) >= min(len(tokens), rule.min_turns)
        assert sum(shown) <= ceiling or len(shown) <= rule.min_turns


@given(bounds, token_counts, st.integers(1, 4000))
def test_no_cut_is_needed_right_after_a_cut(bound: tuple[int, int], tokens: list[int], ceiling: int) -> None:
    """Cutting twice changes nothing: one cut is enough."""
    rule = stepped(*bound, ceiling)
    cut = advance(0, tokens, rule)

    assert cut == advance(cut, tokens[cut:], rule)


@given(bounds)
def test_prefix_breaks_once_per_step(bound: tuple[int, int]) -> None:
    """Between two cuts lie exactly c = max - min + 1 turns."""
    rule = stepped(*bound)
    cuts = [stateless_cut(n, rule) for n in range(rule.max_turns + 5 * step(rule))]

    assert {0, step(rule)} == {later - earlier for earlier, later in pairwise(cuts)} | {0}


def test_last_n_slides_by_one_turn_and_all_never_cuts() -> None:
    """The two policies that are there to be compared with."""
    last = WindowRule(policy="last_n", min_turns=1, max_turns=6)

    assert [stateless_cut(n, last) for n in (6, 7, 8)] == [0, 1, 2]
    assert [advance(0, [0] * n, last) for n in (6, 7, 8)] == [0, 1, 2]
    assert advance(0, [1] * 500, WindowRule(policy="all", min_turns=1, max_turns=2)) == 0


@pytest.mark.parametrize("wrong", [(0, 5), (6, 5)])
def test_impossible_bounds_are_refused(wrong: tuple[int, int]) -> None:
    """A rule that no window can satisfy cannot be made."""
    with pytest.raises(ValueError, match="min_turns"):
        stepped(*wrong)
