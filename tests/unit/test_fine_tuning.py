"""Training jobs under what a client and a worker do at the same time, and under a queue that is away."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import BadRequest
from gateway.fine_tuning import TrainingJobs, Wanted
from training.errors import IllegalTransition, JobConflict, JobNotFound, QueueUnavailable
from training.job import Change, Job, Status, apply
from training.memory_files import MemoryFiles
from training.memory_jobs import MemoryJobs
from training.memory_queue import MemoryQueue


class Raced(MemoryJobs):
    """A store in which a worker changes the job right before a client's change arrives."""

    def __init__(self, *meanwhile: Change) -> None:
        super().__init__()
        self.meanwhile = list(meanwhile)

    async def advance(self, job: Job) -> None:
        """See JobStore."""
        if self.meanwhile:
            await super().advance(apply(await self.get(job.id), self.meanwhile.pop(0), now=1.0))
        await super().advance(job)


class Away(MemoryQueue):
    """A queue that takes nothing for now."""

    is_away = True

    async def push(self, job_id: str) -> None:
        """See JobQueue."""
        if self.is_away:
            raise QueueUnavailable("away")
        await super().push(job_id)


async def desk(folder: Path, store: MemoryJobs, queue: MemoryQueue) -> tuple[TrainingJobs, Wanted]:
    """The use case with one file in it, and a job that wants it."""
    files = MemoryFiles(folder, max_bytes=10, max_files=2)

    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    stored = await files.create("acme", "a", "fine-tune", content(), now=1.0)
    jobs = TrainingJobs(store, queue, files, folder / "datasets", lambda: 1000.0)
    return jobs, Wanted(model="m", training_file=stored.id, recipe="lora")


async def test_a_change_is_computed_anew_when_a_worker_was_quicker(tmp_path: Path) -> None:
    """Both of the worker's changes stand, and the client's behind them."""
    store = Raced(Change.CLAIM, Change.START)
    jobs, wanted = await desk(tmp_path, store, MemoryQueue())
    job = await jobs.create("acme", wanted)

    paused = await jobs.change("acme", job.id, Change.PAUSE)

    assert (Status.PAUSED, 4, 1) == (paused.status, paused.version, paused.fence)
    assert paused == await store.get(job.id)


async def test_a_change_that_the_worker_made_impossible_is_told(tmp_path: Path) -> None:
    """It ended in between."""
    store = Raced(Change.CLAIM, Change.START, Change.SUCCEED)
    jobs, wanted = await desk(tmp_path, store, MemoryQueue())
    job = await jobs.create("acme", wanted)

    with pytest.raises(IllegalTransition):
        await jobs.change("acme", job.id, Change.PAUSE)


async def test_a_job_that_never_stands_still_is_a_conflict(tmp_path: Path) -> None:
    """The tries are bounded."""
    store = Raced(*[Change.CLAIM] * 50)
    jobs, wanted = await desk(tmp_path, store, MemoryQueue())
    job = await jobs.create("acme", wanted)

    with pytest.raises(JobConflict):
        await jobs.change("acme", job.id, Change.CANCEL)


async def test_a_resume_that_the_queue_did_not_take_is_asked_for_again(tmp_path: Path) -> None:
    """The job stands as queued meanwhile, and nobody was told of it twice."""
    store, queue = MemoryJobs(), Away()
    queue.is_away = False
    jobs, wanted = await desk(tmp_path, store, queue)
    job = await jobs.create("acme", wanted)
    await jobs.change("acme", job.id, Change.PAUSE)
    queue.is_away = True
    with pytest.raises(QueueUnavailable):
        await jobs.change("acme", job.id, Change.RESUME)
    queue.is_away = False

    again = await jobs.change("acme", job.id, Change.RESUME)

    assert again.status is Status.QUEUED
    assert [job.id, job.id] == queue.ids


async def test_a_process_that_dies_before_it_queued_is_made_good_by_the_same_key(tmp_path: Path) -> None:
    """The record alone was there; under the same key the id reaches the queue."""
    store, queue = MemoryJobs(), MemoryQueue()
    jobs, wanted = await desk(tmp_path, store, queue)
    job = await jobs.create("acme", wanted, key="once")
    queue.ids.clear()

    assert job == await jobs.create("acme", wanted, key="once")
    assert [job.id] == queue.ids


async def test_keys_of_two_tenants_are_two_jobs(tmp_path: Path) -> None:
    """A tenant's key finds no other's job."""
    jobs, wanted = await desk(tmp_path, MemoryJobs(), MemoryQueue())
    job = await jobs.create("acme", wanted, key="once")

    with pytest.raises(BadRequest) as caught:
        await jobs.create("umbrella", wanted, key="once")
    with pytest.raises(JobNotFound):
        await jobs.get("umbrella", job.id)
    assert caught.value.code == "file_not_found"


async def test_a_key_is_not_used_up_by_a_queue_that_is_away(tmp_path: Path) -> None:
    """The same request again makes the job that was wanted; without a key nobody comes again for it."""
    store, queue = MemoryJobs(), Away()
    jobs, wanted = await desk(tmp_path, store, queue)
    for key in ("k", ""):
        with pytest.raises(QueueUnavailable):
            await jobs.create("acme", wanted, key=key)
    queue.is_away = False
    job = await jobs.create("acme", wanted, key="k")

    assert (Status.QUEUED, [job.id]) == (job.status, queue.ids)
    assert [Status.FAILED] == [one.status for one in await store.list("acme") if one.id != job.id]
