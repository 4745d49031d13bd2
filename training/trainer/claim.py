"""A job under one claim: what its worker may still write, and how it hears that it is to stop.

Under a claim nothing gives up because Redis is away: a training goes on meanwhile, and what is to be written
is written when Redis is back.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from training.errors import JobConflict, JobNotFound, StoreUnavailable
from training.job import TRANSITIONS, Change, Job, JobError, JobEvent, Level, Status, apply
from training.trainer.workshop import Workshop

log = logging.getLogger(__name__)

TRIES = 10
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
_T = TypeVar("_T")


class Left(Exception):
    """The job is no longer this claim's. `status` is None where it was claimed anew, or is gone."""

    def __init__(self, job_id: str, status: Status | None) -> None:
        super().__init__(f"job {job_id}: {status or 'another claim'}")
        self.status = status


class Failed(Exception):
    """The job has failed, for this reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = JobError(code, message)


class Claim:
    """The job as this worker has it. `job` is the newest record that it knows."""

    def __init__(self, job: Job, shop: Workshop) -> None:
        self.job = job
        self._shop = shop

    async def insist(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """The call's result, tried again as long as the store is away."""
        delay_s = FIRST_DELAY_S
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                log.warning("%s; trying again in %.1f s", error, delay_s)
                await self._shop.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def glance(self) -> None:
        """Read the record once; nothing is known when the store is away. Raises Left."""
        try:
            record = await self._shop.store.get(self.job.id)
        except StoreUnavailable as error:
            log.warning("%s; the training goes on", error)
        except JobNotFound:
            raise Left(self.job.id, None) from None
        else:
            self._hold(record)

    async def check(self) -> None:
        """Read the record for certain. Raises Left."""
        self._hold(await self._record())

    async def change(self, change: Change, *, error: JobError | None = None, **fields: Any) -> None:
        """Record a change, and fields with it. Raises Left where it is no longer ours to make."""
        for _ in range(TRIES):
            changed = apply(self.job, change, now=self._shop.clock(), error=error)
            changed = msgspec.structs.replace(changed, **fields)
            try:
                await self.insist(lambda changed=changed: self._shop.store.advance(changed))  # type: ignore[misc]
            except JobConflict:
                record = await self._record()
                if record != changed:
                    self._take(record, change)
                    continue
            self.job = changed
            return
        raise JobConflict(self.job.id)

    async def tell(
        self, message: str, *, level: Level = Level.INFO, data: Mapping[str, float] | None = None
    ) -> None:
        """Add a line to the job's story."""
        event = JobEvent(at=self._shop.clock(), message=message[:2000], level=level, data=data)
        await self.insist(lambda: self._shop.store.append_event(self.job.id, event))

    async def _record(self) -> Job:
        try:
            return await self.insist(lambda: self._shop.store.get(self.job.id))
        except JobNotFound:
            raise Left(self.job.id, None) from None

    def _hold(self, record: Job) -> None:
        """Keep what was read, if it still is ours and to be worked on."""
        if record.fence != self.job.fence:
            raise Left(record.id, None)
        if record.status not in (Status.VALIDATING, Status.RUNNING):
            raise Left(record.id, record.status)
        self.job = record

    def _take(self, record: Job, change: Change) -> None:
        """Keep what somebody else has written, if the change may still be made."""
        if record.fence != self.job.fence:
            raise Left(record.id, None)
        if (record.status, change) not in TRANSITIONS:
            raise Left(record.id, record.status)
        self.job = record
