"""Near duplicates, shared n-grams, lengths and the split: pure decisions about many dialogues."""

import random

from hypothesis import given
from hypothesis import strategies as st

from training.datasets.lengths import Lengths, cutoff_problem
from training.datasets.likeness import Evaluation, Seen, alike, sketch, tokens
from training.datasets.split import is_held_out

WORDS = [f"word{number}" for number in range(400)]


def talk(seed: int, length: int = 200) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def test_a_few_changed_words_are_nearly_the_same() -> None:
    """And two talks of the same words are not."""
    seen = Seen(0.8)
    first, other = talk(1), talk(2)
    changed = [*first[:150], "otherwise", *first[151:]]
    assert [False, True, True, False] == [
        seen.is_known(sketch(one)) for one in (first, first, changed, other)
    ]


def test_the_estimate_is_near_the_similarity() -> None:
    """Half of the shingles in common: a third of all of them."""
    found = [
        alike(sketch([*talk(seed), *talk(500 + seed)]), sketch([*talk(seed), *talk(1000 + seed)]))
        for seed in range(1, 60)
    ]
    assert abs(sum(found) / len(found) - 1 / 3) < 0.03


def test_short_texts_are_never_called_alike() -> None:
    """One yes is no copy of another; equal rows are found by their hash."""
    seen = Seen(0.8)
    assert [False, False] == [seen.is_known(sketch(tokens("yes of course"))) for _ in range(2)]


@given(st.lists(st.integers(0, 12), max_size=40))
def test_removing_near_duplicates_twice_removes_nothing_more(seeds: list[int]) -> None:
    """What was kept is kept again."""
    first, second = Seen(0.85), Seen(0.85)
    kept = [seed for seed in seeds if not first.is_known(sketch(talk(seed)))]
    assert kept == [seed for seed in kept if not second.is_known(sketch(talk(seed)))]
    assert len(set(seeds)) == len(kept)


def test_chinese_is_compared_by_characters() -> None:
    """It has no spaces between words."""
    text = "今天的天气真好我们一起去公园散步吧然后喝一杯茶再慢慢走回家好不好"
    seen = Seen(0.7)
    assert [False, True] == [seen.is_known(sketch(tokens(one))) for one in (text, text[:-1])]


def test_what_shares_a_run_of_words_with_the_evaluation_is_known() -> None:
    """Whatever its case and its punctuation."""
    evaluation = Evaluation(5)
    evaluation.add("The lighthouse closes at noon on Sundays.")
    assert evaluation.has("He said the LIGHTHOUSE closes, at noon!")
    assert not evaluation.has("The lighthouse closes at midnight on Sundays.")
    assert not Evaluation(5).has("The lighthouse closes at noon on Sundays.")


@given(st.text(max_size=20), st.floats(0, 0.9))
def test_a_user_is_always_on_the_same_side(user: str, share: float) -> None:
    """And who is held out of little is held out of more."""
    side = is_held_out(user, share)
    assert side is is_held_out(user, share)
    assert not side or is_held_out(user, min(0.99, share + 0.1))


def test_about_the_share_of_users_is_held_out() -> None:
    """Of 20,000 users a twentieth."""
    held = sum(is_held_out(f"user-{number}", 0.05) for number in range(20_000))
    assert 850 < held < 1150


def test_a_cutoff_below_the_99th_percentile_is_refused() -> None:
    """With the number to set; the one prompt of a hundred that is longer does not count."""
    lengths = Lengths()
    for tokens_ in [*range(1, 100), 5000]:
        lengths.add(tokens_)
    assert (99, 5000) == (lengths.quantile(), lengths.longest())
    assert "" == cutoff_problem(99, lengths.quantile())
    assert "set it to 99 or more" in cutoff_problem(98, lengths.quantile())
    assert 0 == Lengths().quantile()
