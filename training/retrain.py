"""Use case: a worker was handed a job's id. It may be handed the same id twice, and another worker may too.

    the record is final, paused or gone    what may still run of it is ended
    claimed MAX_ATTEMPTS times already     the job ends its workers: failed, `redelivered_too_often`
    otherwise                              claim it, which outdates every earlier claim, and train

A change is computed from the record that was read and stored only if that is still the newest. If it is not,
the record is read again: still ours, the change is computed anew; claimed by somebody else, or cancelled, it
is none of our business any more.
"""

import logging
from pathlib import Path

from training.errors import JobConflict, JobNotFound, RequestFault, RunFault
from training.job import MAX_ATTEMPTS, Change, Job, JobError, JobEvent, Level, Status, apply
from training.trainer.claim import TRIES, Claim, Failed, Left
from training.trainer.course import train
from training.trainer.workshop import Workshop

log = logging.getLogger(__name__)


async def run_job(job_id: str, *, shop: Workshop) -> None:
    """Work on the job until it is final or not ours. Raises StoreFault, and then may be called again."""
    try:
        claim = await _claimed(job_id, shop)
    except JobNotFound:
        log.warning("job %s was queued but has no record; dropped", job_id)
        return
    if claim is None:
        return
    try:
        await _work(claim, shop)
    except Left as left:
        log.info("left: %s", left)


async def _work(claim: Claim, shop: Workshop) -> None:
    """Raises Left."""
    try:
        await train(claim, shop, folder_for(claim.job, shop))
    except Failed as failed:
        await _fail(claim, failed.error)
    except RequestFault as fault:
        await _fail(claim, JobError(_code(fault), str(fault)))
    except RunFault as fault:
        await _fail(claim, JobError("keeper_failed", str(fault)))
    except OSError as error:
        log.exception("job %s: its folder cannot be used", claim.job.id)
        told = f"{error.strerror or type(error).__name__}: {error.filename or 'training.folder'}."
        await _fail(claim, JobError("folder_unusable", f"{told} Mend it and submit the job again."))


def folder_for(job: Job, shop: Workshop) -> Path:
    """The job's folder. Raises Failed where this worker cannot train at all."""
    if shop.trainer.cli() is None:
        raise Failed("llamafactory_missing", shop.trainer.missing())
    folder = shop.folder_of(job.id)
    if folder is None:
        raise Failed(
            "folder_missing",
            "The worker has no folder to train in: set training.folder, which gateway and workers share"
            " (or FRIENDO_TRAINING_FOLDER, or the worker's --folder), and submit the job again.",
        )
    return folder


async def _claimed(job_id: str, shop: Workshop) -> Claim | None:
    """The job as we hold it, or None if there is nothing to train."""
    for _ in range(TRIES):
        job = await shop.store.get(job_id)
        if job.terminal or job.status is Status.PAUSED:
            await _end_what_runs(job, shop)
            return None
        if job.attempts >= MAX_ATTEMPTS:
            await _end_what_runs(job, shop)
            await _fail(Claim(job, shop), _worn_out(job))
            return None
        claimed = apply(job, Change.CLAIM, now=shop.clock())
        try:
            await shop.store.advance(claimed)
        except JobConflict:
            continue
        told = f"taken by a worker, attempt {claimed.attempts} of {MAX_ATTEMPTS}"
        await shop.store.append_event(job_id, JobEvent(at=claimed.updated_at, message=told))
        return Claim(claimed, shop)
    raise JobConflict(job_id)


async def _end_what_runs(job: Job, shop: Workshop) -> None:
    """Its worker may have died before it could: cancelled and paused mean that nothing trains."""
    folder = shop.folder_of(job.id)
    if folder is None:
        return
    run = await shop.runs.find(folder)
    if run.state in ("alive", "lost"):
        await shop.runs.stop(folder, run, patient=job.status is Status.PAUSED)


def _worn_out(job: Job) -> JobError:
    return JobError(
        "redelivered_too_often",
        f"{job.attempts} workers took this job and none finished it. Look into the worker's log for what"
        " ended them (memory is the usual cause), mend it, and submit the job again.",
    )


def _code(fault: RequestFault) -> str:
    """`BadDataset` as `bad_dataset`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in type(fault).__name__).lstrip("_")


async def _fail(claim: Claim, error: JobError) -> None:
    """Fail the job that we hold, unless it is no longer ours to fail."""
    try:
        await claim.change(Change.FAIL, error=error)
    except Left as left:
        log.info("left: %s", left)
        return
    await claim.tell(f"{error.code}: {error.message}", level=Level.ERROR)
    log.info("job %s failed: %s", claim.job.id, error.code)
