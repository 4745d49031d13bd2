"""The closed form against the published table, against brute force, and at its edges."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from history.economics import (
    Facts,
    best_max_turns,
    best_step,
    cost_per_turn,
    hit_rate,
    holding_price,
    mean_prompt,
    retention_s,
    summary_price,
    uncached_tokens,
)

PUBLISHED = Facts(persona_tokens=800, summary_tokens=200, user_tokens=40, turn_tokens=160, answer_tokens=120)
facts = st.builds(
    Facts,
    persona_tokens=st.floats(0, 4000),
    summary_tokens=st.floats(0, 800),
    user_tokens=st.floats(1, 400),
    turn_tokens=st.floats(10, 2000),
    sigma=st.floats(0, 5000),
    r0=st.floats(0.005, 1),
    p_cold=st.floats(0, 1),
    block=st.integers(1, 128),
)


@pytest.mark.parametrize(("r0", "turns"), [(0.02, 65), (0.1, 39), (0.2, 32)])
def test_the_best_window_is_the_one_of_the_design(r0: float, turns: int) -> None:
    assert best_max_turns(replace(PUBLISHED, r0=r0), 20, (20, 200)) == turns


def test_units_of_the_worked_example() -> None:
    lean = replace(PUBLISHED, summary_tokens=0)
    assert uncached_tokens(lean, 20, 40) == pytest.approx(40 + 3200 / 21 + 8)
    assert mean_prompt(PUBLISHED, 20, 40) == pytest.approx(800 + 200 + 40 + 160 * 30)
    assert 0.95 < hit_rate(PUBLISHED, 20, 40) < 0.98


@given(facts, st.integers(1, 60))
def test_the_form_finds_what_trying_every_window_finds(given_facts: Facts, min_turns: int) -> None:
    tried = range(min_turns, min_turns + 300)
    best = best_max_turns(given_facts, min_turns, (min_turns, min_turns + 299))
    least = min(cost_per_turn(given_facts, min_turns, turns) for turns in tried)
    assert cost_per_turn(given_facts, min_turns, best) == pytest.approx(least, rel=1e-9)


@given(facts, st.integers(1, 60), st.integers(0, 100), st.integers(0, 100))
def test_bounds_are_kept(given_facts: Facts, min_turns: int, low: int, width: int) -> None:
    bounds = (min_turns + low, min_turns + low + width)
    assert bounds[0] <= best_max_turns(given_facts, min_turns, bounds) <= bounds[1]


@given(facts, st.integers(1, 60), st.floats(0, 1))
def test_what_is_dearer_to_hold_is_held_for_fewer_turns(given: Facts, min_turns: int, colder: float) -> None:
    more = replace(given, p_cold=max(given.p_cold, colder))
    assert best_step(more, min_turns) <= best_step(given, min_turns) * (1 + 1e-9)


@given(facts, st.integers(1, 60))
def test_a_dearer_summary_is_made_less_often(given: Facts, min_turns: int) -> None:
    dearer = replace(given, sigma=given.sigma + 1000)
    assert best_step(dearer, min_turns) >= best_step(given, min_turns)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_token_costs_between_its_cached_price_and_its_full_one(r0: float, p_cold: float) -> None:
    assert r0 <= holding_price(r0, p_cold) + 1e-12
    assert holding_price(r0, p_cold) <= 1 + 1e-12


@given(facts, st.integers(1, 60), st.integers(0, 100))
def test_the_price_lies_between_all_cached_and_all_computed(given: Facts, low: int, more: int) -> None:
    plain = replace(given, sigma=0.0)
    prompt, cost = mean_prompt(plain, low, low + more), cost_per_turn(plain, low, low + more)
    computed = max(prompt, uncached_tokens(plain, low, low + more))
    assert min(plain.r0, 1) * prompt <= cost * (1 + 1e-9)
    assert cost <= computed * (1 + 1e-9)


def test_memory_that_costs_nothing_is_held_for_ever() -> None:
    free = replace(PUBLISHED, r0=0.0)
    assert best_step(free, 20) == inf
    assert best_max_turns(free, 20, (20, 500)) == 500


def test_a_summary_that_reads_the_live_prompt_is_cheaper_than_its_own_prompt_of_a_long_window() -> None:
    fork = summary_price(PUBLISHED, 20, instruction_tokens=150, output_price=0)
    assert fork == pytest.approx(150 + 0.1 * (800 + 200 + 19 * 160))
    alone = summary_price(PUBLISHED, 20, instruction_tokens=150, output_price=5, is_fork=False)
    assert alone == pytest.approx(150 + 200 + 5 * 200)


def test_longer_steps_lengthen_retention() -> None:
    short = retention_s(500_000, 2.0, PUBLISHED, 20, 22)
    assert retention_s(500_000, 2.0, PUBLISHED, 20, 40) > short > 0
    assert retention_s(500_000, 0.0, PUBLISHED, 20, 40) == inf


@pytest.mark.parametrize(
    "wrong",
    [{"r0": 1.1}, {"p_cold": -0.1}, {"turn_tokens": 0}, {"block": 0}, {"sigma": inf}, {"r0": float("nan")}],
)
def test_facts_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Facts(**wrong)  # type: ignore[arg-type]


def test_a_window_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no max_turns"):
        best_max_turns(PUBLISHED, 50, (10, 40))
    with pytest.raises(ValueError, match="min_turns"):
        cost_per_turn(PUBLISHED, 10, 9)
