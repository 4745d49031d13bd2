"""The GPU lease of one job while a worker works on it."""

import logging

from training.errors import StoreUnavailable
from training.ports import Lease
from training.trainer.claim import Claim
from training.trainer.workshop import Workshop

log = logging.getLogger(__name__)


class Leasing:
    """Gets the lease, keeps it, gives it back. Its owner is the job: a new claim outdates the old one's."""

    def __init__(self, claim: Claim, shop: Workshop) -> None:
        self._claim = claim
        self._shop = shop
        self._lease: Lease | None = None
        self._renewed_at = 0.0

    async def wait(self) -> None:
        """Until the GPUs are this job's. Raises Left."""
        is_told = False
        while not await self._claim.insist(self._is_held):
            if not is_told:
                is_told = True
                await self._claim.tell(f"waiting for {', '.join(self._shop.gpus_here)}")
            await self._shop.sleep(self._shop.patience.look_every_s)
            await self._claim.glance()

    async def keep(self) -> None:
        """Renew it when that is due. A running trainer holds its GPUs' locks too, so losing it stops nothing.

        Call it behind a look at the record: a lease is taken anew only by the newest claim.
        """
        if self._shop.clock() - self._renewed_at < self._shop.patience.renew_every_s:
            return
        try:
            if not await self._is_held():
                log.warning("job %s: its GPU lease is another job's", self._claim.job.id)
        except StoreUnavailable as error:
            log.warning("%s; the training goes on", error)

    async def release(self) -> None:
        """For the next job. Where the store is away it runs out by itself."""
        if self._lease is not None:
            try:
                await self._shop.gpus.release(self._lease)
            except StoreUnavailable as error:
                log.warning("%s; the GPU lease runs out by itself", error)

    async def _is_held(self) -> bool:
        if self._lease is None or not await self._shop.gpus.renew(self._lease):
            self._lease = await self._shop.gpus.acquire(self._shop.gpus_here, self._claim.job.id)
        self._renewed_at = self._shop.clock()
        return self._lease is not None
