"""How long prefixes stay, learned."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.horizon import Horizon


@given(st.lists(st.tuples(st.floats(0, 5000), st.booleans())), st.floats(1, 4000))
def test_it_stays_between_nothing_and_the_longest(seen: list[tuple[float, bool]], longest: float) -> None:
    """Whatever comes."""
    horizon = Horizon(longest)
    for age, was_there in seen:
        horizon.learned(age, was_there=was_there)
        assert 0 < horizon.seconds <= longest
        assert horizon.is_full == (horizon.seconds < longest)


def test_it_finds_the_age_at_which_prefixes_go() -> None:
    """Caches that lose everything at 300 s, asked at all ages."""
    horizon = Horizon(1800.0)
    for number in range(2000):
        age = (number * 37) % 900
        horizon.learned(age, was_there=age < 300)

    assert 200 < horizon.seconds < 500


def test_what_was_expected_teaches_nothing() -> None:
    """A young prefix that is there, an old one that is gone."""
    horizon = Horizon(1000.0)
    horizon.learned(100.0, was_there=True)
    horizon.learned(5000.0, was_there=False)

    assert horizon.seconds == 1000.0
    assert not horizon.is_full
