"""The population of the store's benchmark is what its tables say it is."""

from itertools import islice

import pytest

from bench.million_turns.population import (
    batches,
    cut_covers,
    lengths,
    outline,
    picked,
    shortest_alike,
)
from bench.million_turns.round_trips import spread
from bench.million_turns.talk import ANSWER_TOKENS, USER_TOKENS, Speaker, tokens_said
from history.conversation import Turn
from history.store_rules import MEMORIES_KEPT
from history.window import WindowRule, stateless_cut

RULE = WindowRule()


def said(seed: str, count: int) -> list[Turn]:
    return [one.turn for one in islice(Speaker(seed).said(), count)]


@pytest.mark.parametrize(("turns", "conversations"), [(1_000_000, 20_000), (500, 500), (7, 2), (1, 1)])
def test_population_has_exactly_the_turns_that_were_asked_for(turns: int, conversations: int) -> None:
    """Nobody is left without a turn, and rounding loses none."""
    drawn = lengths(turns, conversations, seed=0)

    assert (turns, conversations) == (sum(drawn), len(drawn))
    assert min(drawn) >= 1


def test_most_conversations_are_short_and_some_have_thousands_of_turns() -> None:
    """Half of them never fill a window, and the long ones hold most of what is stored."""
    drawn = sorted(lengths(1_000_000, 20_000, seed=0))

    assert drawn[len(drawn) // 2] < RULE.min_turns
    assert sum(length > 1_000 for length in drawn) > 20
    assert sum(drawn[-2_000:]) > sum(drawn) / 2


def test_more_conversations_than_turns_are_refused() -> None:
    """A conversation without a turn is none."""
    with pytest.raises(ValueError, match="one turn in each"):
        lengths(1, 2, seed=0)


def test_batches_hold_every_conversation_once() -> None:
    """What several processes write is the whole population."""
    drawn = lengths(20_000, 400, seed=0)
    numbers = [number for batch in batches(drawn, 2_000) for number in batch]

    assert list(range(400)) == numbers


def test_the_same_seed_says_the_same() -> None:
    """Runs can be compared, and processes need not talk."""
    assert said("7/3", 5) == said("7/3", 5)
    assert said("7/3", 5) != said("7/4", 5)
    assert outline(3, 9, seed=7) == outline(3, 9, seed=7)


def test_turns_are_as_long_as_they_are_said_to_be() -> None:
    """Within a tenth of the tokens that the benchmark's text names, in both languages together."""
    tokens = [tokens_said(turn) for number in range(60) for turn in said(f"0/{number}", 40)]
    user, answer = (sum(column) / len(tokens) for column in zip(*tokens, strict=True))

    assert USER_TOKENS == pytest.approx(user, rel=0.1)
    assert ANSWER_TOKENS == pytest.approx(answer, rel=0.1)


@pytest.mark.parametrize("length", [1, 40, 41, 124, 125, 1_000, 9_999])
def test_shortest_form_has_the_same_window_and_memory(length: int) -> None:
    """So the two stores differ in how much they hold and in nothing else."""
    short = shortest_alike(length, RULE, MEMORIES_KEPT)

    assert length - stateless_cut(length, RULE) == short - stateless_cut(short, RULE)
    assert len(cut_covers(length, RULE, MEMORIES_KEPT)) == len(cut_covers(short, RULE, MEMORIES_KEPT))
    assert short < 150


def test_memory_has_a_version_for_each_of_the_newest_cuts() -> None:
    """The newest one covers just what has left the window."""
    assert () == cut_covers(40, RULE, MEMORIES_KEPT)
    assert (21, 42) == cut_covers(82, RULE, MEMORIES_KEPT)
    assert (42, 63, 84, 105) == cut_covers(140, RULE, MEMORIES_KEPT)
    assert stateless_cut(140, RULE) == cut_covers(140, RULE, MEMORIES_KEPT)[-1]


def test_long_conversations_are_picked_more_often() -> None:
    """The next message comes where most is said."""
    assert 1 in picked((1, 100_000, 1), 10, seed=0)
    assert len(picked((1, 100_000, 1), 10, seed=0)) < 3


def test_percentiles_are_measured_values() -> None:
    """Nothing is interpolated; the worst one counts."""
    taken = spread([float(number) for number in range(100, 0, -1)])

    assert (50.0, 99.0, 100.0) == (taken.p50, taken.p99, taken.max)
