"""A wanted job is recorded, then queued; what cannot be queued does not wait for ever."""

import pytest

from training.dispatch import dispatch
from training.errors import JobExists, QueueUnavailable, StoreUnavailable
from training.job import Change, Job, Status, apply, new_job
from training.memory_jobs import MemoryJobs
from training.memory_queue import MemoryQueue

JOB = new_job(job_id="job-1", tenant="acme", model="m", recipe="lora", now=1000.0)


class Refusing:
    """A queue that is away. `meanwhile` is what happens to the record before that is known."""

    def __init__(self, store: MemoryJobs, meanwhile: Change | None = None) -> None:
        self._store = store
        self._meanwhile = meanwhile

    async def push(self, job_id: str) -> None:
        """See JobQueue."""
        if self._meanwhile is not None:
            await self._store.advance(apply(await self._store.get(job_id), self._meanwhile, now=1000.0))
        raise QueueUnavailable("the queue did not take the job: connection refused")


class Failing(MemoryJobs):
    """A store that goes away after the job was created."""

    async def advance(self, job: Job) -> None:
        """See JobStore."""
        raise StoreUnavailable("the job store did not answer")


async def test_a_dispatched_job_is_recorded_and_its_id_queued() -> None:
    """The queue carries the id alone."""
    store, queue = MemoryJobs(), MemoryQueue()

    await dispatch(JOB, store=store, queue=queue, now=1000.0)

    assert await store.get("job-1") == JOB
    assert queue.ids == ["job-1"]
    assert [event.message for event in await store.events("job-1")] == ["queued"]


async def test_an_id_in_use_is_not_queued_again() -> None:
    """The job that has it is not disturbed."""
    store, queue = MemoryJobs(), MemoryQueue()
    await store.create(JOB)

    with pytest.raises(JobExists):
        await dispatch(JOB, store=store, queue=queue, now=1000.0)

    assert queue.ids == []


async def test_a_job_that_cannot_be_queued_is_marked_as_failed() -> None:
    """The caller hears it, and the record does not say that it waits."""
    store = MemoryJobs()

    with pytest.raises(QueueUnavailable):
        await dispatch(JOB, store=store, queue=Refusing(store), now=1000.0)

    job = await store.get("job-1")
    assert job.error is not None
    assert (job.status, job.error.code) == (Status.FAILED, "queue_unavailable")
    assert "submit the job again" in job.error.message


async def test_a_job_taken_in_spite_of_the_error_is_left_to_its_worker() -> None:
    """Where only the queue's answer was lost, a worker may have the job already."""
    store = MemoryJobs()

    with pytest.raises(QueueUnavailable) as caught:
        await dispatch(JOB, store=store, queue=Refusing(store, Change.CLAIM), now=1000.0)

    assert (await store.get("job-1")).status is Status.VALIDATING
    assert "could not be marked" in caught.value.__notes__[0]


async def test_both_failures_are_told() -> None:
    """The first is raised, the second is not lost."""
    store = Failing()

    with pytest.raises(QueueUnavailable) as caught:
        await dispatch(JOB, store=store, queue=Refusing(store), now=1000.0)

    assert "the job store did not answer" in caught.value.__notes__[0]
