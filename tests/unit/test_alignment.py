"""Where a dialogue that a client sends meets the one that is stored."""

from hypothesis import given
from hypothesis import strategies as st

from history.alignment import Alignment, align

# Few distinct messages, so that repetition and ambiguity are the rule.
messages = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=12)


def matched_at(known: list[bytes], stored: list[bytes], start: int) -> int:
    """The naive count of known messages that match from a stored position on."""
    count = 0
    while count < len(known) and start + count < len(stored) and known[count] == stored[start + count]:
        count += 1
    return count


@given(messages.filter(bool), messages)
def test_agrees_with_trying_every_place(known: list[bytes], stored: list[bytes]) -> None:
    """A whole match that ends where the store ends comes first, then the longest, then the latest."""
    lengths = [matched_at(known, stored, start) for start in range(len(stored))]
    tail = len(stored) - len(known)
    if tail >= 0 and lengths[tail : tail + 1] == [len(known)]:
        expected: Alignment | None = Alignment(matched=len(known), end=len(stored))
    elif not any(lengths):
        expected = None
    else:
        best = max(range(len(lengths)), key=lambda start: (lengths[start], start))
        expected = Alignment(matched=lengths[best], end=best + lengths[best])

    assert expected == align(known, stored)


@given(messages.filter(bool))
def test_whole_dialogue_sent_back_is_known_to_its_end(stored: list[bytes]) -> None:
    """A client that sends all that is stored continues it."""
    assert Alignment(matched=len(stored), end=len(stored)) == align(stored, stored)


@given(messages.filter(bool), st.data())
def test_any_window_of_the_newest_messages_continues(stored: list[bytes], data: st.DataObject) -> None:
    """A client may cut its history wherever it likes."""
    start = data.draw(st.integers(0, len(stored) - 1))

    assert Alignment(matched=len(stored) - start, end=len(stored)) == align(stored[start:], stored)


def test_long_repetitive_dialogues_cost_linear_time() -> None:
    """20,000 equal messages against 20,000: quadratic work would not end."""
    assert align([b"a"] * 20_000 + [b"b"], [b"a"] * 20_000) == Alignment(matched=20_000, end=20_000)
