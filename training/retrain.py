"""Use case: a worker was handed a job's id. It may be handed the same id twice, and another worker may too.

    the record is final, paused or gone    nothing to do
    claimed MAX_ATTEMPTS times already     the job ends its workers: failed, `redelivered_too_often`
    otherwise                              claim it, which outdates every earlier claim, and work

A change is computed from the record that was read and stored only if that is still the newest. If it is not,
the record is read again: still ours, the change is computed anew; claimed by somebody else, or cancelled, it
is none of our business any more.
"""

import logging
from collections.abc import Callable

from training.errors import JobConflict, JobNotFound
from training.job import MAX_ATTEMPTS, TRANSITIONS, Change, Job, JobError, JobEvent, Level, Status, apply
from training.ports import JobStore, Trainer

log = logging.getLogger(__name__)

TRIES = 10


async def run_job(job_id: str, *, store: JobStore, trainer: Trainer, clock: Callable[[], float]) -> None:
    """Work on the job until it is final or not ours. Raises StoreFault, and then may be called again."""
    try:
        job = await _claimed(job_id, store, clock)
    except JobNotFound:
        log.warning("job %s was queued but has no record; dropped", job_id)
        return
    if job is not None:
        await _failed(job, _reason(trainer), store, clock)


def _reason(trainer: Trainer) -> JobError:
    if trainer.cli() is None:
        return JobError("llamafactory_missing", trainer.missing())
    return JobError(
        "not_in_this_version",
        "This version keeps, queues and shows jobs but does not train: running recipes comes with the"
        " training release. Update, and submit the job again.",
    )


async def _claimed(job_id: str, store: JobStore, clock: Callable[[], float]) -> Job | None:
    """The job as we hold it, or None if there is nothing to do."""
    for _ in range(TRIES):
        job = await store.get(job_id)
        if job.terminal or job.status is Status.PAUSED:
            return None
        if job.attempts >= MAX_ATTEMPTS:
            await _failed(job, _worn_out(job), store, clock)
            return None
        claimed = apply(job, Change.CLAIM, now=clock())
        try:
            await store.advance(claimed)
        except JobConflict:
            continue
        told = f"taken by a worker, attempt {claimed.attempts} of {MAX_ATTEMPTS}"
        await store.append_event(job_id, JobEvent(at=claimed.updated_at, message=told))
        return claimed
    raise JobConflict(job_id)


def _worn_out(job: Job) -> JobError:
    return JobError(
        "redelivered_too_often",
        f"{job.attempts} workers took this job and none finished it. Look into the worker's log for what"
        " ended them (memory is the usual cause), mend it, and submit the job again.",
    )


async def _failed(held: Job, error: JobError, store: JobStore, clock: Callable[[], float]) -> None:
    """Fail the job that we hold, unless it is no longer ours to fail."""
    job = held
    for _ in range(TRIES):
        failed = apply(job, Change.FAIL, now=clock(), error=error)
        try:
            await store.advance(failed)
        except JobConflict:
            job = await store.get(held.id)
            if job.fence != held.fence or (job.status, Change.FAIL) not in TRANSITIONS:
                return
            continue
        event = JobEvent(at=failed.updated_at, level=Level.ERROR, message=f"{error.code}: {error.message}")
        await store.append_event(held.id, event)
        log.info("job %s failed: %s", held.id, error.code)
        return
    raise JobConflict(held.id)
