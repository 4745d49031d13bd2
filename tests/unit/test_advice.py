"""Advice on made-up traffic: near the best window of a grid, and another one for other pauses."""

from math import inf

import msgspec
import pytest

from bench.advise import PAUSES, RETENTION_S, Sample, advice_of, judged
from gateway.advise.generator import People, generated
from history.advice import TOLERANCE, closed_form, grid, share_above
from history.economics import cost_per_turn
from history.replay import Circumstances
from history.window import WindowRule

SMALL = 40


def people(kind: str) -> People:
    return msgspec.structs.replace(PAUSES[kind], dialogues=SMALL)


@pytest.mark.parametrize("kind", list(PAUSES))
@pytest.mark.parametrize("r0", [0.02, 0.3])
def test_advice_is_within_seven_per_cent_of_the_best_window_for_other_people(kind: str, r0: float) -> None:
    given = Circumstances(r0=r0, retention_s=RETENTION_S)
    found = judged(kind, 1, given, people=people(kind))
    assert found.regret <= 0.07
    assert found.formula_regret <= 0.07


def test_long_pauses_get_another_window_than_short_ones() -> None:
    """The same people, who come back after seconds or after a quarter of an hour."""
    given = Circumstances(retention_s=RETENTION_S)
    short, long = (advice_of(Sample(people(kind), 3), given, 20) for kind in ("short", "long"))
    assert short.max_turns > long.max_turns + 5
    assert short.closed.facts.p_cold < 0.02
    assert long.closed.facts.p_cold > 0.25
    assert short.closed.r < long.closed.r


def test_where_the_cache_is_short_the_replay_is_believed() -> None:
    """The formula knows the mean rate of writing, not the rush hours."""
    sample = Sample(people("short"), 0)
    need = 30 * sample.traffic.turn_tokens.mean * sample.traffic.active
    given = Circumstances(cache_tokens=int(need / 2), retention_s=inf)
    found = advice_of(sample, given, 20)
    assert found.by == "replay"
    assert found.excess > TOLERANCE
    assert found.max_turns < found.closed.max_turns


def test_a_shared_cache_makes_the_formulas_window_shorter() -> None:
    sample = Sample(people("companions"), 0)
    wide, narrow = (
        closed_form(sample.traffic, sample.gaps, Circumstances(cache_tokens=tokens), 20, (1, 160))
        for tokens in (10**9, 40_000)
    )
    assert narrow.max_turns < wide.max_turns
    assert narrow.retention_s < wide.retention_s


def test_an_assumed_share_of_cold_turns_is_taken_as_it_is() -> None:
    sample = Sample(people("companions"), 0)
    found = closed_form(
        sample.traffic, sample.gaps, Circumstances(cache_tokens=40_000), 20, (1, 160), p_cold=0.5
    )
    assert found.facts.p_cold == 0.5


def test_the_summary_is_as_long_as_it_may_cost() -> None:
    sample = Sample(people("companions"), 0)
    dear, cheap = (
        advice_of(sample, Circumstances(retention_s=RETENTION_S, output_price=price), 20)
        for price in (200.0, 0.0)
    )
    assert dear.summary_tokens <= cheap.summary_tokens
    assert 100 <= dear.summary_tokens <= 400


def test_without_summaries_nothing_is_paid_for_them() -> None:
    sample = Sample(people("companions"), 0)
    found = advice_of(sample, Circumstances(summary_tokens=0, retention_s=RETENTION_S), 20)
    assert found.chosen.summaries == 0
    assert found.closed.facts.sigma == 0
    assert found.closed.at(found.max_turns).cost == cost_per_turn(found.closed.facts, 20, found.max_turns)


def test_the_grid_has_every_wanted_window_within_bounds() -> None:
    rules = grid([3, 5], (1, 40), also=[37, 99])
    assert WindowRule(min_turns=3, max_turns=37) in rules
    assert WindowRule(min_turns=5, max_turns=5) in rules
    assert all(rule.min_turns <= rule.max_turns <= 40 for rule in rules)


def test_shares_above() -> None:
    assert share_above([1.0, 2.0, 3.0, 4.0], 2.0) == 0.5
    assert share_above([], 2.0) == 0.0


def test_the_same_seed_makes_the_same_people() -> None:
    one, again, other = (list(generated(people("companions"), seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_made_up_people_are_as_promised() -> None:
    """Medians of lengths and pauses; a few characters that everybody wants; some who never leave."""
    sample = Sample(msgspec.structs.replace(People(), dialogues=150), 5)
    traffic = sample.traffic
    assert traffic.user_tokens.median == pytest.approx(30, rel=0.15)
    assert traffic.answer_tokens.median == pytest.approx(120, rel=0.1)
    assert traffic.gaps is not None
    assert traffic.gaps.median == pytest.approx(120, rel=0.15)
    assert traffic.dialogue_turns.at[0.95] > 4 * traffic.dialogue_turns.median
    by_character = [sketch.character for sketch in sample.sketches]
    assert max(by_character.count(name) for name in set(by_character)) > 150 / 6


def test_people_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="dialogues"):
        People(dialogues=0)
    with pytest.raises(ValueError, match="medians"):
        People(gap_median=0)
