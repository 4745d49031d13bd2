"""Keeps leases alive while answers are being written, and tells their holders when to stop.

One loop for all leases of a process instead of a task per request: a turn that ends within a third of
its lease costs nothing here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from history.conversation import ConversationKey, Lease
from history.errors import StoreFault
from history.ports import ConversationStore

Stop = Literal["interrupted", "lost"]


@dataclass(slots=True)
class _Held:
    key: ConversationKey
    lease: Lease
    on_stop: Callable[[Stop], None]
    renewed_at: float
    is_stopped: bool = False


class LeaseKeeper:
    """Renews what is held; `run` has to be a task of the process's task group."""

    def __init__(self, store: ConversationStore, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self.renewals = 0

    def hold(self, key: ConversationKey, lease: Lease, on_stop: Callable[[Stop], None]) -> None:
        """Renew this lease until `drop`. `on_stop` is called once if its holder has to stop."""
        self._held[lease.owner] = _Held(key, lease, on_stop, self._clock())

    def drop(self, owner: str) -> None:
        """Stop renewing: the turn is committed, released or lost."""
        self._held.pop(owner, None)

    def interrupt(self, key: ConversationKey) -> None:
        """Stop the holder of this conversation if it is in this process."""
        for held in [one for one in self._held.values() if one.key == key]:
            self._stop(held, "interrupted")

    async def run(self, *, tick_s: float = 0.5) -> None:
        """Renew for ever."""
        while True:
            await asyncio.sleep(tick_s)
            now = self._clock()
            due = [one for one in self._held.values() if now - one.renewed_at >= one.lease.duration_ms / 3000]
            if due:
                await asyncio.gather(*(self._renew(one, now) for one in due))

    async def _renew(self, held: _Held, now: float) -> None:
        held.renewed_at = now
        self.renewals += 1
        try:
            renewal = await self._store.renew(held.key, held.lease)
        except StoreFault:
            # The commit will tell: it succeeds if the store is back before anybody took over.
            return
        if not renewal.held:
            self.drop(held.lease.owner)
            self._stop(held, "lost")
        elif renewal.interrupted:
            self._stop(held, "interrupted")

    def _stop(self, held: _Held, reason: Stop) -> None:
        """An interrupted holder still needs its lease to store what it has, so renewals go on."""
        if not held.is_stopped:
            held.is_stopped = True
            held.on_stop(reason)
