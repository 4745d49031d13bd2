"""Use case: a job is wanted. It is recorded first and queued then: no worker meets an id without a record."""

from training.errors import QueueUnavailable, StoreFault
from training.job import Change, Job, JobError, JobEvent, Level, apply
from training.ports import JobQueue, JobStore


async def dispatch(
    job: Job, *, store: JobStore, queue: JobQueue, now: float, comes_again: bool = False
) -> None:
    """Record a new job and hand its id to the workers.

    Raises what `create` and `push` raise. A job that was recorded and could not be queued is marked as
    failed, so that nobody waits for it; unless whoever wants it `comes_again` and queues it then.
    """
    await store.create(job)
    await store.append_event(job.id, JobEvent(at=now, message="queued"))
    try:
        await queue.push(job.id)
    except QueueUnavailable as unavailable:
        if comes_again:
            raise
        await _withdraw(job, unavailable, store=store, now=now)
        raise


async def _withdraw(job: Job, unavailable: QueueUnavailable, *, store: JobStore, now: float) -> None:
    error = JobError("queue_unavailable", f"{unavailable}; submit the job again")
    try:
        await store.advance(apply(job, Change.FAIL, now=now, error=error))
        await store.append_event(job.id, JobEvent(at=now, level=Level.ERROR, message=error.message))
    except StoreFault as also:
        unavailable.add_note(f"job {job.id} could not be marked as failed either: {also}")
