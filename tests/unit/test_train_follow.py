"""What `friendo train` shows of a job: its story, where it stands, how it ended; and what an outage does."""

import io

import pytest
from rich.console import Console

from gateway.cli import train_follow
from gateway.cli.train import look_again
from gateway.cli.train_follow import Screen, follow, is_overlooked, line, printable, standing, verdict
from training.errors import StoreUnavailable
from training.job import Change, Job, JobError, JobEvent, Level, apply, new_job
from training.memory_jobs import MemoryJobs

JOB = new_job(job_id="j", tenant="t", model="smollm2", recipe="lora", now=1000.0)
FAILED = apply(JOB, Change.FAIL, now=1001.0, error=JobError("out_of_memory", "Take a smaller batch."))


class Clock:
    """Ten seconds pass between two looks at it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        self.now += 10
        return self.now


class Outage(MemoryJobs):
    """A store that answers only after some questions."""

    def __init__(self, silent_for: int) -> None:
        super().__init__()
        self.silent_for = silent_for

    async def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[JobEvent, ...]:
        """See JobStore."""
        self.silent_for -= 1
        if self.silent_for >= 0:
            raise StoreUnavailable("away")
        return await super().events(job_id, after=after, limit=limit)


class EndsBetween(MemoryJobs):
    """A store in which the job fails, and says so, between the first reading of its events and its record."""

    ended = False

    async def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[JobEvent, ...]:
        """See JobStore."""
        found = await super().events(job_id, after=after, limit=limit)
        if not self.ended:
            self.ended = True
            await self.advance(FAILED)
            told = JobEvent(at=1001.0, level=Level.ERROR, message="out_of_memory: Take a smaller batch.")
            await self.append_event(job_id, told)
            await self.append_event(job_id, JobEvent(at=1002.0, message="the folder stays"))
        return found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two looks."""
    monkeypatch.setattr(train_follow, "ASK_AGAIN_AFTER_S", 0)


async def shown(store: MemoryJobs) -> tuple[Job, list[str]]:
    """How the job ended, and the lines that were left on a screen that is no terminal."""
    said = io.StringIO()
    with Screen(Console(file=said)) as screen:
        job = await follow("j", store=store, screen=screen, clock=Clock())
    return job, said.getvalue().splitlines()


def test_a_line_carries_its_time_and_only_an_unusual_level() -> None:
    """Levels are for what wants to be noticed."""
    assert line(JobEvent(at=0.0, message="queued")) == "1970-01-01 00:00:00Z  queued"
    assert line(JobEvent(at=0.0, message="m", level=Level.WARN)) == "1970-01-01 00:00:00Z  warn: m"


def test_the_standing_counts_attempts_from_the_second_on() -> None:
    """A second attempt is news, a first is not."""
    once = apply(JOB, Change.CLAIM, now=1000.0)
    twice = apply(once, Change.CLAIM, now=1000.0)
    assert standing(once, now=1065.0) == "j for smollm2: validating, for 1:05"
    assert standing(twice, now=999.0) == "j for smollm2: validating, attempt 2, for 0:00"


def test_the_verdict_says_what_to_do() -> None:
    """Code for programs, message for people."""
    assert verdict(FAILED) == "job j: failed (out_of_memory). Take a smaller batch."
    assert verdict(apply(JOB, Change.CANCEL, now=1001.0)) == "job j: cancelled"


def test_only_a_queued_job_is_overlooked() -> None:
    """A paused job waits for its owner, not for a worker."""
    paused = apply(JOB, Change.PAUSE, now=1000.0)
    assert [False, True] == [is_overlooked(JOB, now=now) for now in (1010.0, 1010.5)]
    assert not is_overlooked(paused, now=2000.0)


def test_a_terminal_takes_no_orders_from_a_message() -> None:
    """A training log may hold anything."""
    assert printable("loss\x1b[2J 0.1\r\nß") == "loss [2J 0.1  ß"


def test_a_password_is_not_repeated() -> None:
    """A log keeps what the command printed."""
    assert look_again("j", redis=None) == "friendo train --follow j"
    assert look_again("j", redis="redis://h:1/0") == "friendo train --follow j --redis redis://h:1/0"
    assert look_again("j", redis="redis://me:hunter2@h:1/0") == "friendo train --follow j --redis URL"


async def test_what_is_said_after_the_end_is_shown_and_the_end_itself_once() -> None:
    """The worker tells of a failure after it has recorded it, and `verdict` tells it as well."""
    store = EndsBetween()
    await store.create(JOB)
    await store.append_event("j", JobEvent(at=1000.0, message="queued"))

    job, lines = await shown(store)

    assert (FAILED, ["queued", "the folder stays"]) == (job, [text.split("  ")[1] for text in lines])


async def test_a_job_that_nobody_takes_is_remarked_on_once() -> None:
    """Waiting without a worker would be waiting for ever."""

    class Slow(MemoryJobs):
        reads = 0

        async def get(self, job_id: str) -> Job:
            self.reads += 1
            return FAILED if self.reads > 4 else await super().get(job_id)

    store = Slow()
    await store.create(JOB)

    _, lines = await shown(store)

    assert [train_follow.NOBODY_TAKES_IT] == lines


async def test_an_outage_shorter_than_the_limit_is_waited_out() -> None:
    """The job goes on meanwhile."""
    store = Outage(silent_for=3)
    await store.create(FAILED)

    assert await shown(store) == (FAILED, [])


async def test_an_outage_longer_than_the_limit_ends_the_following() -> None:
    """A script does not hang for ever."""
    store = Outage(silent_for=100)
    await store.create(FAILED)

    with pytest.raises(StoreUnavailable):
        await shown(store)
    assert store.silent_for > 90
