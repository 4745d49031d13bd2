"""Facts said long ago are in the prompt that answers the question about them."""

import pytest

from bench.needles import summary
from bench.needles.trial import Outcome, outcomes
from gateway.advise.needles.generator import LANGUAGES, Case, Exchange, cases, templates
from history.compaction import CompactionRule
from history.recall import RecallRule
from history.window import WindowRule

RULE = RecallRule()


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


@pytest.fixture(scope="module")
def sparse() -> list[Outcome]:
    """200 cases, at 5 to 500 turns, Chinese and English: ten facts in each dialogue."""
    return list(outcomes(0, rule=RULE, window=WindowRule()))


@pytest.fixture(scope="module", params=[0, 1])
def answered(request: pytest.FixtureRequest, sparse: list[Outcome]) -> list[Outcome]:
    """Those, and as many others."""
    return sparse if request.param == 0 else list(outcomes(1, rule=RULE, window=WindowRule()))


def test_facts_at_any_distance_are_in_the_prompt(answered: list[Outcome]) -> None:
    """At least 95 % in each language, by the window or by recall."""
    by_language = {one: [got.shown for got in answered if got.case.language == one] for one in LANGUAGES}

    assert {one: len(found) for one, found in by_language.items()} == {"en": 100, "zh": 100}
    assert {one: share(found) for one, found in by_language.items() if share(found) < 0.95} == {}


def test_facts_that_left_the_window_are_recalled(answered: list[Outcome]) -> None:
    """At least 95 % of those that only recall can bring back, so that the window does not flatter it."""
    left = [got.recalled for got in answered if not got.in_window]

    assert len(left) > 100
    assert share(left) >= 0.95


def test_tails_stay_within_the_budget(answered: list[Outcome]) -> None:
    """512 tokens for all that is recalled."""
    assert max(got.tail_tokens for got in answered) <= RULE.max_tokens


def test_questions_are_no_copies_of_their_facts() -> None:
    """No question holds the answer, and none repeats four words (six characters) of the fact in a row."""
    spaced = {one: templates(one).spaced for one in LANGUAGES}
    for case in cases(0):
        fact, question = case.said[case.planted].user.lower(), case.question.lower()
        assert case.answer in case.said[case.planted].user
        assert case.answer not in case.question
        spoken, joint, width = (
            (question.split(), " ", 4) if spaced[case.language] else (list(question), "", 6)
        )
        runs = [joint.join(spoken[at : at + width]) for at in range(len(spoken) - width + 1)]
        assert [run for run in runs if run in fact] == []


def test_cases_are_the_same_for_the_same_seed() -> None:
    """A figure can be had again."""
    assert list(cases(3, per_distance=1)) == list(cases(3, per_distance=1))
    assert list(cases(3, per_distance=1)) != list(cases(4, per_distance=1))


def told(*lines: str, planted: int, facts: tuple[int, ...]) -> Case:
    """A dialogue of these lines, whose answer is `blue`."""
    said = tuple(Exchange(line, "") for line in lines)
    return Case("en", 0, len(said) - planted, said, "Which?", "blue", facts)


def test_a_summary_keeps_the_newest_that_fits_its_budget() -> None:
    """By tokens and by number; a line that is longer than a fact may be loses its end."""
    lines = ("it is blue", "I chat", "a fact", "I chat", "a fact")
    case = told(*lines, planted=0, facts=(0, 2, 4))
    # "- it is blue\n" and twice "- a fact\n": 4 + 3 + 3 tokens; a line of chat takes 3 more.
    fits, small, few = (
        CompactionRule(max_tokens=10),
        CompactionRule(max_tokens=9),
        CompactionRule(max_facts=2),
    )
    long = told("x" * 200 + " blue", planted=0, facts=(0,))

    assert summary.ideal(case, 5, fits)
    assert not summary.ideal(case, 5, small)
    assert not summary.ideal(case, 5, few)
    assert not summary.newest(case, 5, fits)
    assert summary.newest(case, 5, CompactionRule(max_tokens=16))
    assert summary.newest(case, 2, fits)
    assert not summary.ideal(long, 1, CompactionRule())


def test_a_dialogue_full_of_facts_outgrows_the_best_summary(sparse: list[Outcome]) -> None:
    """While recall finds them as before; in a dialogue with ten facts an ideal summary has them all."""
    full = [
        one for one in outcomes(0, rule=RULE, window=WindowRule(), fact_every=10) if one.case.distance >= 350
    ]
    left = [one for one in sparse if not one.in_window]

    assert share([one.recalled for one in full]) >= 0.9
    assert share([one.summarised for one in full]) < 0.1
    assert share([one.summarised for one in left]) == 1
    assert share([one.in_newest_lines for one in left]) < 0.5
