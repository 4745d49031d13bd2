"""What lines of metrics say of a run."""

import io

import pytest
from rich.console import Console

from gateway.cli.train_follow import Screen, far
from training.job import JobEvent
from training.progress import Progress, checkpoints, curve, progress


def said(at: float, **data: float) -> JobEvent:
    """A line of metrics."""
    return JobEvent(at=at, message="", data=data)


def steps(start: int, stop: int, *, at: float = 0.0) -> list[JobEvent]:
    """Two seconds a step."""
    return [said(at + 2 * n, step=n, total_steps=100, train_loss=1 / n) for n in range(start, stop)]


def test_the_end_is_told_by_the_pace_so_far() -> None:
    """Ten of a hundred steps at two seconds each."""
    found = progress([JobEvent(at=0.0, message="began"), *steps(1, 11)])

    assert found == Progress(10, 100, 0.1, None, 200.0)


def test_before_there_are_two_steps_nobody_knows_the_end() -> None:
    """Nor without a total."""
    assert progress([JobEvent(at=0.0, message="began")]) is None
    assert progress(steps(1, 2)) == Progress(1, 100, 1.0, None, None)
    assert progress([said(1.0, step=1), said(2.0, step=2)]) == Progress(2, 0, None, None, None)


def test_a_resumed_run_has_its_own_pace() -> None:
    """The pause between two attempts is no time that steps took."""
    found = progress([*steps(1, 41), *steps(31, 36, at=100_000.0)])

    assert found is not None
    assert (35, 100_200.0) == (found.step, found.finishes_at)


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 11, 999])
def test_a_curve_is_bounded_and_keeps_its_ends(count: int) -> None:
    """In order, no point twice."""
    found = curve([*steps(1, 1 + count), said(1.0, checkpoint_step=3)], most=10)

    shown = [point.step for point in found]
    assert len(shown) == min(count, 10) == len(set(shown))
    assert shown == sorted(shown)
    assert {1, count} <= set(shown) or not count


def test_checkpoints_are_told_newest_first_and_once() -> None:
    """A step that was saved again, by a resumed run, is its newest line."""
    again = said(9.0, checkpoint_step=10)

    assert [20, 10] == [
        step for step, _ in checkpoints([said(1.0, checkpoint_step=10), said(2.0, checkpoint_step=20)])
    ]
    assert ((10, again),) == checkpoints([said(1.0, checkpoint_step=10), again])


def test_a_terminal_shows_a_bar_with_the_loss_and_the_time_that_is_left() -> None:
    """Redrawn at the bottom."""
    done = Progress(10, 100, 0.12345, 0.5, 1300.0)
    words = far(done, now=1000.0)
    screen = io.StringIO()
    with Screen(Console(file=screen, force_terminal=True, width=120)) as shown:
        shown.show(words, done)

    assert words == "step 10 of 100, loss 0.1235, held out 0.5, 5:00 left"
    assert shown.has_bar
    assert "━" in screen.getvalue()
