"""What may become of a rollout, in which order, and what is remembered of it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rollout.errors import RolloutRefused
from gateway.rollout.record import (
    DECISIONS_KEPT,
    LEAVING_KEPT,
    Actor,
    Order,
    Rollout,
    Version,
    approved,
    begun,
    placed,
    shared,
    taken_back,
    trimmed,
    version_name,
    widened,
)
from gateway.rollout.verdict import Rule

WHO = Actor("ada", 100.0, "because")


def order(number: int = 1, *, base: str = "small", is_approved: bool = False, **other: object) -> Order:
    version = Version(f"luna--{number}", "adapter", f"/a/{number}", "small")
    made = Order("luna", version, base, (0.25, 1.0), Rule(), is_approved)
    return msgspec.structs.replace(made, **other)


def whole_way(record: Rollout | None, number: int) -> Rollout:
    """Version `number` is everybody's."""
    record = shared(begun(record, order(number, is_approved=True), WHO), WHO)
    return widened(widened(record, WHO), WHO)


def test_the_way_of_a_version() -> None:
    """It waits, is approved, placed, shared, widened, everybody's; each step is noted with who and why."""
    record = begun(None, order(), WHO)
    assert record.trial is not None
    assert ("waiting_for_approval", 0.0) == (record.trial.state, record.trial.share)
    assert [Version("small", "base")] == list(record.live)
    record = shared(placed(approved(record, WHO), "node"), WHO)
    assert record.trial is not None
    assert ("sharing", 0.25, "node") == (record.trial.state, record.trial.share, record.trial.first_node)
    record = widened(record, WHO)
    assert record.trial is not None
    assert 1.0 == record.trial.share
    record = widened(record, Actor("bob", 200.0))

    assert (None, "luna--1", ["small"]) == (
        record.trial,
        record.current.name,
        [one.name for one in record.earlier],
    )
    assert [
        ("started", "ada"),
        ("approved", "ada"),
        ("shared with 0.25 of what begins", "ada"),
        ("widened to 1 of what begins", "ada"),
        ("everybody's", "bob"),
    ] == [(one.what, one.by) for one in record.history]
    assert {("luna--1", "because"), ("luna--1", "")} == {(one.version, one.why) for one in record.history}


def test_a_trial_is_taken_back_at_any_time() -> None:
    """The current version stays; the one that was tried leaves."""
    waiting = begun(None, order(), WHO)
    for record in (waiting, approved(waiting, WHO), shared(approved(waiting, WHO), WHO)):
        after = taken_back(record, WHO, keep=1)
        assert (None, "small", ["luna--1"]) == (
            after.trial,
            after.current.name,
            [one.version.name for one in after.leaving],
        )


def test_without_a_trial_the_version_before_is_there_again() -> None:
    """As often as there is one."""
    record = whole_way(whole_way(None, 1), 2)
    back = taken_back(record, WHO, keep=1)
    assert ("luna--1", ["luna--2"]) == (back.current.name, [one.version.name for one in back.leaving])
    back = taken_back(back, WHO, keep=1)
    assert "small" == back.current.name
    with pytest.raises(RolloutRefused, match="no version before"):
        taken_back(back, WHO, keep=1)


def test_only_so_many_stay_loaded() -> None:
    """The base always does: nothing could unload it."""
    record = whole_way(whole_way(whole_way(None, 1), 2), 3)
    assert ["luna--2", "luna--1", "small"] == [one.name for one in record.earlier]
    kept = trimmed(record, WHO, keep=1)
    assert (["luna--2", "small"], ["luna--1"]) == (
        [one.name for one in kept.earlier],
        [one.version.name for one in kept.leaving],
    )
    assert kept == trimmed(kept, WHO, keep=1)


def test_what_cannot_be_is_refused() -> None:
    """In the words of what to do."""
    waiting = begun(None, order(), WHO)
    settled = whole_way(None, 1)
    for act, words in (
        (lambda: begun(waiting, order(2), WHO), "is being rolled out"),
        (lambda: begun(settled, order(1), WHO), "never written again"),
        (lambda: begun(settled, order(2, base="other"), WHO), "answered by small now"),
        (
            lambda: begun(settled, order(2, version=Version("luna--2", "adapter", "/a/1", "small")), WHO),
            "/a/1",
        ),
        (lambda: begun(None, order(steps=(0.5, 0.2)), WHO), "rising"),
        (lambda: begun(None, order(steps=()), WHO), "rising"),
        (lambda: begun(None, order(steps=(0.0, 1.0)), WHO), "above 0"),
        (lambda: begun(None, order(steps=(0.5, 1.5)), WHO), "at most 1"),
        (lambda: approved(approved(waiting, WHO), WHO), "approved already"),
        (lambda: widened(waiting, WHO), "no share yet"),
        (lambda: widened(settled, WHO), "nothing is being rolled out"),
        (lambda: version_name("lu--na", "1"), "without --"),
        (lambda: version_name("luna", "a/b"), "version: expected"),
        (lambda: version_name("", "1"), "alias: expected"),
    ):
        with pytest.raises(RolloutRefused, match=words):
            act()


@given(st.integers(1, 200))
def test_what_is_remembered_is_bounded(times: int) -> None:
    """However often somebody goes to and fro."""
    record: Rollout | None = None
    for number in range(times):
        record = taken_back(begun(record, order(number), WHO), WHO, keep=1)

    assert record is not None
    assert len(record.history) <= DECISIONS_KEPT
    assert len(record.leaving) <= LEAVING_KEPT
    assert times == record.trials
