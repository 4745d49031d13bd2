"""Tokens of a user's words, by what the engine counted of the words before."""

from hypothesis import given
from hypothesis import strategies as st

from history.conversation import Reply, Turn
from history.spoken_tokens import CLOSING, OPENING, spoken_tokens, tail_tokens

WORDS = b"how are you"


def message(words: bytes) -> bytes:
    return b'{"role":"user","content":"%b"}' % words


def turns(said: list[bytes], rate: float, *, tails: dict[int, int] | None = None) -> list[Turn]:
    """As an engine counts them at this rate; some with a tail in their prompt, which the next one lacks."""
    found, prompt, answer = list[Turn](), 100, 12
    for at, words in enumerate(said):
        own = OPENING + CLOSING + round(rate * len(words))
        tail = (tails or {}).get(at, 0)
        reply = Reply(prompt_tokens=prompt + own + tail, completion_tokens=answer)
        found.append(Turn(messages=(message(words), b"{}"), digests=b"", reply=reply))
        prompt += own + answer
    return found


@given(
    st.lists(st.binary(min_size=20, max_size=200), min_size=4, max_size=30),
    st.sampled_from([0.2, 0.25, 0.4, 1.0]),
)
def test_the_dialogues_own_rate_is_found(said: list[bytes], rate: float) -> None:
    """In English as in Chinese, to the rounding."""
    found = spoken_tokens(turns(said, rate), message(WORDS * 10))

    assert found is not None
    assert abs(found - OPENING - rate * len(WORDS) * 10) <= len(WORDS) * 10 * 0.5 / 20 + 1


def test_a_tail_here_and_there_does_not_move_it() -> None:
    """The turn with it looks denser, the next one thinner: the median is neither."""
    said = [b"x" * 100] * 11
    found = spoken_tokens(turns(said, 0.25, tails={3: 60, 7: 80}), message(b"x" * 100))

    assert OPENING + 25 == found


def test_nothing_is_said_where_nothing_was_counted() -> None:
    """A dialogue's second turn, an engine without usage, turns behind a cut."""
    known = turns([b"x" * 100] * 3, 0.25)
    bare = [Turn(messages=one.messages, digests=b"") for one in known]

    assert spoken_tokens(known[:1], message(WORDS)) is None
    assert spoken_tokens(bare, message(WORDS)) is None
    assert spoken_tokens([known[2], known[0]], message(WORDS)) is None


def test_a_tail_is_denser_than_words_by_the_dialogues_own_rate() -> None:
    """And by the usual one where nothing was counted yet."""
    chinese = turns([b"x" * 100] * 5, 0.4)

    assert (48, 30) == (tail_tokens(chinese, 100), tail_tokens([], 100))
