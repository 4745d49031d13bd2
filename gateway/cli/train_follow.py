"""Following one training job from outside: its story as lines, where it stands, how it ended.

The store tells nobody of news, so it is asked again and again. It may be away for a while: a training job
lasts longer than most outages, and who follows it has nothing else to do.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from training.errors import StoreUnavailable
from training.job import MAX_EVENTS, Job, JobEvent, Level, Status
from training.ports import JobStore
from training.progress import Progress, progress

_BAR_WIDTH = 30
ASK_AGAIN_AFTER_S = 0.25
GIVE_UP_AFTER_S = 60.0
SUSPICIOUS_AFTER_S = 10.0
NOBODY_TAKES_IT = "no worker has taken the job yet; is one running on this Redis? Start one: friendo worker"


class Screen:
    """Lines that stay, and below them, on a terminal only, one that says how things stand."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._standing = console.status("")

    def __enter__(self) -> Self:
        self._standing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._standing.stop()

    def say(self, text: str) -> None:
        """Print a line that stays, as it is."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def show(self, text: str, done: Progress | None = None) -> None:
        """Replace the line at the bottom; with a bar, once somebody has said how long the run is."""
        words = Text(printable(text))
        if done is None or not done.total_steps:
            self._standing.update(words)
            return
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(
            total=done.total_steps, completed=min(done.step, done.total_steps), width=_BAR_WIDTH
        )
        row.add_row(bar, words)
        self._standing.update(row)

    @property
    def has_bar(self) -> bool:
        """Whether somebody sees what `show` shows."""
        return self._console.is_terminal


async def follow(job_id: str, *, store: JobStore, screen: Screen, clock: Callable[[], float]) -> Job:
    """Show the job's story until it ends, and return it as it ended.

    Raises JobNotFound, RecordUnreadable, and StoreUnavailable after GIVE_UP_AFTER_S without an answer.
    """
    seen, warned, answered_at = 0, False, clock()
    told: deque[JobEvent] = deque(maxlen=MAX_EVENTS)
    while True:
        try:
            events, job = await _news(job_id, store=store, after=seen)
        except StoreUnavailable as error:
            if clock() - answered_at > GIVE_UP_AFTER_S:
                raise
            screen.show(f"{error}; trying again")
        else:
            answered_at = clock()
            for event in events:
                seen = event.seq
                told.append(event)
                is_in_the_bar = event.data is not None and screen.has_bar
                if not tells_the_end(event, job) and not is_in_the_bar:
                    screen.say(line(event))
            if job.terminal:
                return job
            if not warned and is_overlooked(job, now=answered_at):
                warned = True
                screen.say(NOBODY_TAKES_IT)
            done = progress(tuple(told)) if job.status is Status.RUNNING else None
            screen.show(standing(job, now=answered_at, done=done), done)
        _stop_if_told()
        await asyncio.sleep(ASK_AGAIN_AFTER_S)


def _stop_if_told() -> None:
    """End at a Ctrl-C that came in the middle of a call which made a fault of its own out of it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _news(job_id: str, *, store: JobStore, after: int) -> tuple[tuple[JobEvent, ...], Job]:
    """New events, and the job as it stood after them: an event that tells of the end comes with the end."""
    events = await store.events(job_id, after=after, limit=MAX_EVENTS)
    job = await store.get(job_id)
    if job.terminal:
        last = events[-1].seq if events else after
        events += await store.events(job_id, after=last, limit=MAX_EVENTS)
    return events, job


def line(event: JobEvent) -> str:
    """An event with its time in UTC; its level only where it wants to be noticed."""
    at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(event.at))
    level = "" if event.level is Level.INFO else f"{event.level}: "
    return f"{at}  {level}{event.message}"


def tells_the_end(event: JobEvent, job: Job) -> bool:
    """Whether the event says what `verdict` will say."""
    return event.level is Level.ERROR and job.error is not None and job.error.message in event.message


def is_overlooked(job: Job, *, now: float) -> bool:
    """Whether the job has waited so long that somebody should look for a worker."""
    return job.status is Status.QUEUED and now - job.updated_at > SUSPICIOUS_AFTER_S


def standing(job: Job, *, now: float, done: Progress | None = None) -> str:
    """Where the job stands: how far it is, or else for how long there has been no news of it."""
    attempt = f", attempt {job.attempts}" if job.attempts > 1 else ""
    if done is not None:
        return f"{job.id}{attempt}: {far(done, now=now)}"
    return f"{job.id} for {job.model}: {job.status}{attempt}, for {_span(now - job.updated_at)}"


def far(done: Progress, *, now: float) -> str:
    """Steps, loss and what is left of the time, as far as they are known."""
    said = [f"step {done.step}" + (f" of {done.total_steps}" if done.total_steps else "")]
    said += [f"loss {done.train_loss:.4g}"] if done.train_loss is not None else []
    said += [f"held out {done.valid_loss:.4g}"] if done.valid_loss is not None else []
    said += [f"{_span(done.finishes_at - now)} left"] if done.finishes_at is not None else []
    return ", ".join(said)


def _span(seconds: float) -> str:
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02}"


def verdict(job: Job) -> str:
    """How a job ended, and what to do about it if it failed."""
    if job.error is None:
        return f"job {job.id}: {job.status}"
    return printable(f"job {job.id}: {job.status} ({job.error.code}). {job.error.message}")


def printable(text: str) -> str:
    """The text without what a terminal would take as an order."""
    return "".join(character if character.isprintable() else " " for character in text)
