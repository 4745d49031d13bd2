"""How far windows grow: as configured, or as pauses, caches and sizes ask for."""

import random
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.compaction import CompactionRule, free
from history.conversation import Conversation
from history.growth import Growth, Sizes
from history.residency import Retained
from history.rules import DialogueRules
from history.window import WindowSetting, advance

AUTO = WindowSetting(min_turns=20, max_turns="auto")
SIZES = Sizes(prompt=5600.0, turn=160.0, answer=120.0, memory=200.0, persona=800.0, shown=29.0)
AMPLE = Retained(1800.0, is_full=False)


def seen(
    window: WindowSetting = AUTO, *, gap_s: float = 123.0, sizes: Sizes = SIZES, compacts: bool = False
) -> Growth:
    """After a thousand turns with pauses around `gap_s`."""
    growth = Growth(DialogueRules(window=window, compaction=CompactionRule(enabled=compacts)))
    dice = random.Random(1)
    for _ in range(1000):
        growth.paused(dice.lognormvariate(log(gap_s), 1.0))
        growth.took(sizes)
    return growth


def found(growth: Growth, retained: Retained) -> int:
    growth.find(retained)
    return growth.newest().max_turns


def test_what_is_configured_stays_and_nothing_is_looked_for() -> None:
    growth = seen(WindowSetting(min_turns=3, max_turns=7))
    assert not growth.is_due()
    assert growth.newest().max_turns == growth.of(Conversation(grows_to=5)).max_turns == 7
    assert growth.begun(Conversation(), 5) is None


def test_auto_begins_with_twice_the_least() -> None:
    assert Growth(DialogueRules(window=AUTO)).newest().max_turns == 40


def test_with_ample_caches_it_is_the_closed_form() -> None:
    """Design, section 5: L = 20, d = 160, M = 200 and r = 0.1 give 39. All pauses end in time."""
    assert abs(found(seen(gap_s=1.0), AMPLE) - 39) <= 1


def test_caches_that_are_short_show_fewer_turns() -> None:
    growth, shown = seen(), []
    for seconds in (100_000.0, 200.0, 100.0, 50.0):
        growth.find(Retained(seconds, is_full=True))
        assert growth.finding is not None
        shown.append(growth.finding.turns_shown)
    assert shown == sorted(shown, reverse=True)
    assert shown[-1] < shown[0] - 4


@pytest.mark.parametrize(("cold", "turns"), [(0.02, 40), (0.1, 30), (0.3, 60), (0.7, 25)])
def test_the_price_is_that_of_a_dialogue_played_turn_by_turn(cold: float, turns: int) -> None:
    """Messages find their KV gone by a dice; windows are cut by the functions that serve."""
    growth, dice = seen(), random.Random(7)
    for _ in range(20_000):  # all pauses are short or long, so that the share beyond is `cold`
        growth.paused(1e5 if dice.random() < cold else 1.0)
    price = growth._price(turns, Retained(1000.0, is_full=False), SIZES)
    rule = WindowSetting(min_turns=20, max_turns=turns).rule()
    off = CompactionRule(enabled=False)
    cut, shown, computed, count = 0, 0, 0.0, 30_000
    for n in range(40, 40 + count):
        if n == 40 or dice.random() < price.share_cold:
            cut = free(cut, n - cut, (), rule, off)
            computed += SIZES.memory + 40 + 160 * (n - cut)
        else:
            computed += 40 + 8
        shown += n - cut
        moved = advance(cut, [0] * (n + 1 - cut), rule)
        if moved > cut:  # warmed in the background
            computed += SIZES.memory + 160 * 20
        cut = moved
    prompt = SIZES.persona + SIZES.memory + 40 + 160 * shown / count
    cost = 0.9 * computed / count + 0.1 * prompt
    assert price.shown == pytest.approx(shown / count, rel=0.03)
    assert price.cost == pytest.approx(cost, rel=0.05)


def test_a_summary_that_costs_makes_fewer_cuts() -> None:
    assert found(seen(compacts=True, gap_s=1.0), AMPLE) > found(seen(gap_s=1.0), AMPLE)


def test_it_says_what_it_was_found_from() -> None:
    growth = seen()
    growth.find(Retained(300.0, is_full=True))
    finding = growth.finding
    assert finding is not None
    assert finding.max_turns == growth.newest().max_turns
    assert 0 < finding.share_cold < 1
    assert finding.cost <= finding.cost_before
    assert (finding.retention_s, finding.is_full, finding.pauses) == (300.0, True, 1000)


def test_a_window_keeps_what_it_began_with_until_its_next_cut() -> None:
    growth = seen()
    conversation = Conversation(grows_to=60, cut=41)
    growth.find(Retained(60.0, is_full=True))
    assert growth.of(conversation).max_turns == 60
    assert growth.begun(conversation, 41) is None
    assert growth.begun(conversation, 82) == growth.newest().max_turns < 60
    assert growth.begun(Conversation(), 0) == growth.newest().max_turns


def test_what_was_stored_is_held_within_the_bounds_of_today() -> None:
    growth = Growth(DialogueRules(window=WindowSetting(min_turns=20, max_turns="auto", auto_most=50)))
    assert growth.of(Conversation(grows_to=120)).max_turns == 50
    assert growth.of(Conversation(grows_to=3)).max_turns == 24


def test_a_few_turns_are_not_enough() -> None:
    growth = Growth(DialogueRules(window=AUTO))
    for _ in range(63):
        growth.paused(1.0)
        growth.took(SIZES)
    assert not growth.is_due()
    growth.paused(1.0)
    growth.took(SIZES)
    assert growth.is_due()
    growth.find(AMPLE)
    assert not growth.is_due()


@settings(deadline=None)
@given(
    st.floats(min_value=0.01, max_value=1e6),
    st.floats(min_value=0.01, max_value=1e6),
    st.builds(
        Sizes,
        prompt=st.floats(1, 1e5),
        turn=st.floats(0, 5000),
        answer=st.floats(0, 5000),
        memory=st.floats(0, 2000),
        persona=st.floats(0, 20_000),
        shown=st.floats(0, 200),
    ),
    st.booleans(),
)
def test_whatever_is_seen_the_bounds_hold(gap_s: float, kept_s: float, sizes: Sizes, is_full: bool) -> None:
    growth = seen(gap_s=gap_s, sizes=sizes)
    assert 24 <= found(growth, Retained(kept_s, is_full)) <= 160


@pytest.mark.parametrize(
    "setting",
    [
        {"max_turns": "auto", "policy": "last_n"},
        {"max_turns": "auto", "auto_least": 10},
        {"max_turns": "auto", "auto_most": 21},
        {"max_turns": 10},
        {"auto_most": -1},
    ],
)
def test_bounds_that_cannot_be_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|auto"):
        WindowSetting(min_turns=20, **setting)  # type: ignore[arg-type] # each is one field
