"""What a worker does with an id, over a store in memory and a trainer that is or is not there."""

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tests.trainers.rooms import Pretended, workshop
from training.errors import JobConflict
from training.job import MAX_ATTEMPTS, Change, Job, JobError, Level, Status, apply, new_job
from training.memory_jobs import MemoryJobs
from training.retrain import run_job
from training.trainer.workshop import Workshop

NOW = 2000.0


class Installed:
    """A trainer that is there."""

    def cli(self) -> Path | None:
        """See Trainer."""
        return Path("/opt/llamafactory/bin/llamafactory-cli")

    def missing(self) -> str:
        """See Trainer."""
        raise AssertionError("it is not missing")


class Missing:
    """A trainer that is not."""

    def cli(self) -> Path | None:
        """See Trainer."""
        return None

    def missing(self) -> str:
        """See Trainer."""
        return "not installed; install it with `make llamafactory`"


class Raced(MemoryJobs):
    """A store in which somebody else is quicker: `rival` runs before the first `advance` to a `status`."""

    def __init__(self, status: Status, rival: Callable[[MemoryJobs], Awaitable[None]]) -> None:
        super().__init__()
        self._status = status
        self._rival: Callable[[MemoryJobs], Awaitable[None]] | None = rival

    async def advance(self, job: Job) -> None:
        """See JobStore."""
        if job.status is self._status and self._rival is not None:
            rival, self._rival = self._rival, None
            await rival(self)
        await super().advance(job)


def a_job() -> Job:
    """A queued job."""
    return new_job(job_id="job-1", tenant="acme", model="m", recipe="lora", now=1000.0)


async def run(store: MemoryJobs, trainer: Installed | Missing) -> Job:
    """Run job-1 and read what became of it."""
    await run_job("job-1", shop=shop(store, trainer))
    return await store.get("job-1")


def shop(store: MemoryJobs, trainer: Installed | Missing) -> Workshop:
    """A worker's, without a folder: nothing is ever started."""
    whole = workshop(Path("unused"), Pretended(), store=store)
    return dataclasses.replace(whole, trainer=trainer, folder=None, clock=lambda: NOW)


async def holding(job: Job) -> MemoryJobs:
    """A store that holds the job as it stands."""
    store = MemoryJobs()
    await store.create(job)
    return store


async def test_a_missing_environment_fails_the_job_with_the_command_that_installs_it() -> None:
    """The person who reads the record knows what to type."""
    store = await holding(a_job())

    job = await run(store, Missing())

    expected = JobError("llamafactory_missing", Missing().missing())
    assert (Status.FAILED, expected, NOW) == (job.status, job.error, job.updated_at)


async def test_a_worker_without_a_folder_says_what_to_set() -> None:
    """And nothing is started."""
    job = await run(await holding(a_job()), Installed())

    assert job.status is Status.FAILED
    assert job.error is not None
    assert job.error.code == "folder_missing"
    assert "FRIENDO_TRAINING_FOLDER" in job.error.message


async def test_the_story_tells_the_attempt_and_the_failure() -> None:
    """Who reads the events sees that it was taken and why it ended."""
    store = await holding(a_job())
    await run(store, Missing())

    taken, ended = await store.events("job-1")

    assert f"attempt 1 of {MAX_ATTEMPTS}" in taken.message
    assert ended.level is Level.ERROR
    assert ended.message.startswith("llamafactory_missing: ")


@pytest.mark.parametrize(
    "changes",
    [
        [Change.FAIL],
        [Change.CANCEL],
        [Change.PAUSE],
        [Change.CLAIM, Change.START, Change.SUCCEED],
    ],
)
async def test_a_final_or_paused_job_is_left_alone(changes: list[Change]) -> None:
    """An id that comes twice, or after a person has spoken, changes nothing."""
    job = a_job()
    for change in changes:
        error = JobError("x", "y") if change is Change.FAIL else None
        job = apply(job, change, now=1500.0, error=error)
    store = await holding(job)

    assert job == await run(store, Missing())
    assert await store.events("job-1") == ()


async def test_running_an_id_twice_is_running_it_once() -> None:
    """The queue delivers at least once."""
    store = await holding(a_job())

    assert await run(store, Missing()) == await run(store, Missing())
    assert len(await store.events("job-1")) == 2


async def test_an_id_without_a_record_is_dropped() -> None:
    """The worker goes on to the next one."""
    store = MemoryJobs()

    await run_job("job-1", shop=shop(store, Missing()))

    assert await store.list("acme") == ()


@pytest.mark.parametrize("status", [Status.VALIDATING, Status.RUNNING])
async def test_the_fourth_delivery_ends_the_job(status: Status) -> None:
    """A job whose workers died three times is not given a fourth."""
    job = msgspec.structs.replace(a_job(), status=status, attempts=MAX_ATTEMPTS, fence=MAX_ATTEMPTS)
    store = await holding(job)

    failed = await run(store, Missing())

    assert failed.error is not None
    assert (failed.status, failed.error.code) == (Status.FAILED, "redelivered_too_often")
    assert (failed.attempts, failed.fence) == (MAX_ATTEMPTS, MAX_ATTEMPTS)


async def test_the_third_delivery_still_works() -> None:
    """Three attempts mean three."""
    job = msgspec.structs.replace(a_job(), status=Status.VALIDATING, attempts=MAX_ATTEMPTS - 1)

    failed = await run(await holding(job), Missing())

    assert failed.error is not None
    assert (failed.attempts, failed.error.code) == (MAX_ATTEMPTS, "llamafactory_missing")


async def change_it(store: MemoryJobs, change: Change) -> None:
    """What somebody else does to job-1."""
    await store.advance(apply(await store.get("job-1"), change, now=NOW))


async def test_a_cancellation_while_we_work_stands() -> None:
    """The worker's failure does not overwrite what a person decided."""
    store = Raced(Status.FAILED, lambda store: change_it(store, Change.CANCEL))
    await store.create(a_job())

    job = await run(store, Missing())

    assert (job.status, job.error) == (Status.CANCELLED, None)
    assert len(await store.events("job-1")) == 1


async def test_a_worker_that_was_outdated_does_not_end_the_job() -> None:
    """Once somebody else has claimed it, the old claim writes nothing."""
    store = Raced(Status.FAILED, lambda store: change_it(store, Change.CLAIM))
    await store.create(a_job())

    job = await run(store, Missing())

    assert (job.status, job.fence, job.error) == (Status.VALIDATING, 2, None)


async def test_a_change_that_leaves_the_job_ours_is_built_upon() -> None:
    """A start recorded meanwhile does not stop the failure from being recorded."""
    store = Raced(Status.FAILED, lambda store: change_it(store, Change.START))
    await store.create(a_job())

    job = await run(store, Missing())

    assert (job.status, job.version) == (Status.FAILED, 4)


async def test_a_job_cancelled_while_we_claim_it_is_left_alone() -> None:
    """The claim that lost the race is computed anew, from a record that is final."""
    store = Raced(Status.VALIDATING, lambda store: change_it(store, Change.CANCEL))
    await store.create(a_job())

    job = await run(store, Missing())

    assert (job.status, job.attempts) == (Status.CANCELLED, 0)


class Contended(MemoryJobs):
    """A store in which somebody else always was quicker."""

    async def advance(self, job: Job) -> None:
        """See JobStore."""
        raise JobConflict(job.id)


async def test_endless_contention_is_given_up_and_told() -> None:
    """The loop is bounded, and the caller hears that nothing was decided."""
    store = Contended()
    await store.create(a_job())

    with pytest.raises(JobConflict):
        await run_job("job-1", shop=shop(store, Missing()))
