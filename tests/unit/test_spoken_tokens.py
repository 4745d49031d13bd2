"""Tokens of words and tails, by what the engine counted of the whole prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.spoken_tokens import CLOSING, OPENING, spoken_tokens, tail_tokens


def message(words: bytes) -> bytes:
    return b'{"role":"user","content":"%b"}' % words


@given(
    st.lists(st.binary(min_size=20, max_size=200), min_size=2, max_size=40),
    st.sampled_from([0.2, 0.25, 0.4, 1.0]),
)
def test_the_dialogues_own_rate_is_found(said: list[bytes], rate: float) -> None:
    """In English as in Chinese, to the rounding of its messages."""
    parts = [message(words) for words in said]
    prompt = sum(round(rate * len(words)) for words in said) + (OPENING + CLOSING) * len(said) // 2
    found = spoken_tokens(prompt, parts, message(b"x" * 100))

    assert abs(found - OPENING - rate * 100) <= 1 + 100 * 0.5 * (len(said) + 1) / sum(map(len, said))


@pytest.mark.parametrize(("rate", "tail"), [(0.25, 29), (0.4, 46)])
def test_a_tail_is_denser_than_words(rate: float, tail: int) -> None:
    """By the dialogue's own rate."""
    parts = [message(b"x" * 1000)] * 10

    assert abs(tail - tail_tokens(round(rate * 10_000 + 45), parts, 100)) <= 1


def test_nothing_that_an_engine_could_count_breaks_it() -> None:
    """Fewer tokens than marks, no words, no parts."""
    assert (OPENING, 0) == (spoken_tokens(3, [message(b"")] * 9, message(b"abc")), tail_tokens(0, [], 10))
