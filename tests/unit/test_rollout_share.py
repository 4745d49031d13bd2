"""Which version a conversation gets: everybody decides alike, and nobody flips back while a share grows."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.rollout.record import Leaving, Rollout, Trial, Version
from gateway.rollout.share import chosen, drawn, home, in_order, seat
from gateway.rollout.verdict import Rule

OLD, NOW, NEXT, GONE = (Version(name) for name in ("old", "now", "next", "gone"))
names = st.text(max_size=40)


def record(share: float = 0.0, *, next_is: Version = NEXT) -> Rollout:
    trial = Trial(1, next_is, "sharing" if share else "loading", (share or 1.0,), Rule())
    return Rollout("luna", NOW, trial=trial, earlier=(OLD,), leaving=(Leaving(GONE, 0.0),))


@given(names, names, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_wider_share_holds_everybody_whom_the_narrower_one_held(
    tenant: str, name: str, one: float, other: float
) -> None:
    """So nobody flips back when it grows."""
    narrow, wide = sorted((one, other))
    if drawn(record(narrow), tenant, name) == NEXT.name:
        assert NEXT.name == drawn(record(wide), tenant, name)


@given(names, names)
def test_all_of_it_is_everybody_and_nothing_is_nobody(tenant: str, name: str) -> None:
    """The ends of the scale; a trial that is not shared yet has nobody."""
    assert NEXT.name == drawn(record(1.0), tenant, name)
    assert NOW.name == drawn(record(0.0), tenant, name)


def test_a_share_is_as_large_as_it_says() -> None:
    """Over many names, and another half of them for another version."""
    seats = [seat("tenant", f"dialogue {number}", "next") for number in range(20_000)]
    others = [seat("tenant", f"dialogue {number}", "other") for number in range(20_000)]

    for share in (0.05, 0.25, 0.5):
        assert abs(sum(one < share for one in seats) / len(seats) - share) < 0.01
    both = sum(one < 0.5 and other < 0.5 for one, other in zip(seats, others, strict=True))
    assert abs(both / len(seats) - 0.25) < 0.02


@given(names, names, st.sampled_from(["now", "next"]), st.floats(0.01, 1), st.booleans())
def test_a_conversation_keeps_a_version_that_is_live(
    tenant: str, name: str, has: str, share: float, is_cold: bool
) -> None:
    """Whatever its draw would be."""
    got = chosen(record(share), tenant, name, has=has, moment="goes_on", is_cold=is_cold)
    assert has == got == home(record(share), has)


@given(names, st.sampled_from(["", "gone", "unknown", "next"]))
def test_what_was_taken_back_or_is_unknown_goes_to_the_current_one(name: str, has: str) -> None:
    """Between turns; the trial is not shared here."""
    assert NOW.name == chosen(record(), "t", name, has=has, moment="goes_on")


def test_an_earlier_version_goes_on_until_the_new_prefix_is_warm_or_nothing_is() -> None:
    """Where it ends is the current one."""
    assert OLD.name == chosen(record(), "t", "c", has="old", moment="goes_on")
    assert NOW.name == chosen(record(), "t", "c", has="old", moment="goes_on", is_cold=True)
    assert NOW.name == home(record(), "old")


@given(st.sampled_from(["old", "now", "next", "gone"]), st.booleans())
def test_nothing_changes_between_a_call_and_its_result(has: str, is_cold: bool) -> None:
    """Also of what was taken back meanwhile."""
    assert has == chosen(record(0.5), "t", "c", has=has, moment="is_open", is_cold=is_cold)
    assert NOW.name == chosen(record(0.5), "t", "c", has="forgotten", moment="is_open")


def test_where_nobody_has_it_the_current_one_comes_next() -> None:
    """Then those before it."""
    assert ("next", "now", "old") == in_order(record(), "next")
    assert ("now", "old") == in_order(record(), "now")
    gone = Leaving(Version("big", "model"), 0.0)
    left = Rollout("luna", NOW, leaving=(Leaving(GONE, 0.0), gone))
    assert ("now", "big") == in_order(left, "now")
