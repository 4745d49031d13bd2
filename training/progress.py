"""What lines of metrics say: how far it is, when it will be done, how its loss went, and what was saved."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from training.job import JobEvent

STEP, TOTAL, CHECKPOINT = "step", "total_steps", "checkpoint_step"
_LOSSES = ("train_loss", "valid_loss")


class Point(msgspec.Struct, frozen=True):
    """A point of the loss curve. `at` is in seconds since 1970; what was not measured there is None."""

    at: float
    step: int
    train_loss: float | None
    valid_loss: float | None
    learning_rate: float | None


class Progress(msgspec.Struct, frozen=True):
    """How far a run is."""

    step: int
    total_steps: int
    """0 where nobody has said."""
    train_loss: float | None
    valid_loss: float | None
    finishes_at: float | None
    """Seconds since 1970, at the pace of this attempt; None before two steps tell one."""


def progress(events: Sequence[JobEvent]) -> Progress | None:
    """As the newest lines say; None before the first step."""
    run = list(_attempt(events))
    if not run:
        return None
    first, last = run[0], run[-1]
    step, total = _number(last, STEP) or 0, _newest(run, TOTAL) or 0
    steps, seconds = step - (_number(first, STEP) or 0), last.at - first.at
    finishes_at = None
    if total and steps > 0 and seconds > 0:
        finishes_at = last.at + max(0.0, total - step) * seconds / steps
    return Progress(
        step=int(step),
        total_steps=int(total),
        train_loss=_newest(run, "train_loss"),
        valid_loss=_newest(run, "valid_loss"),
        finishes_at=finishes_at,
    )


def curve(events: Sequence[JobEvent], *, most: int) -> tuple[Point, ...]:
    """The loss over the steps, at most `most` (2 or more) points: evenly thinned, the first and last stay."""
    found = [_point(event) for event in events if any(_number(event, loss) is not None for loss in _LOSSES)]
    if len(found) <= most:
        return tuple(found)
    return tuple(found[round(n * (len(found) - 1) / (most - 1))] for n in range(most))


def checkpoints(events: Sequence[JobEvent]) -> tuple[tuple[int, JobEvent], ...]:
    """Steps whose state was saved, with the newest line that says so, newest first."""
    found = {int(step): event for event in events if (step := _number(event, CHECKPOINT)) is not None}
    return tuple(sorted(found.items(), reverse=True, key=lambda one: one[0]))


def _attempt(events: Sequence[JobEvent]) -> Iterator[JobEvent]:
    """The lines with a step since it last went back, which it does where a run is resumed."""
    run = [event for event in events if _number(event, STEP) is not None]
    starts = [
        n for n, (a, b) in enumerate(pairwise(run), 1) if (_number(b, STEP) or 0) < (_number(a, STEP) or 0)
    ]
    yield from run[starts[-1] if starts else 0 :]


def _newest(run: Sequence[JobEvent], name: str) -> float | None:
    return next((said for event in reversed(run) if (said := _number(event, name)) is not None), None)


def _number(event: JobEvent, name: str) -> float | None:
    return event.data.get(name) if event.data else None


def _point(event: JobEvent) -> Point:
    return Point(
        at=event.at,
        step=int(_number(event, STEP) or 0),
        train_loss=_number(event, "train_loss"),
        valid_loss=_number(event, "valid_loss"),
        learning_rate=_number(event, "learning_rate"),
    )
