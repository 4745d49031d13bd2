"""Who has which GPU, in a dictionary: for tests and for a single process. It passes the contract."""

from collections.abc import Callable

from training.ports import Lease


class MemoryGpus:
    """Gpus of this process alone; leases run for `seconds` of `clock`."""

    def __init__(self, *, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._held: dict[str, tuple[Lease, float]] = {}
        self._fence = 0

    async def acquire(self, names: tuple[str, ...], owner: str) -> Lease | None:
        """See Gpus."""
        if any(self._owner(name) not in (None, owner) for name in names):
            return None
        self._fence += 1
        lease = Lease(names, owner, self._fence)
        self._hold(lease)
        return lease

    async def renew(self, lease: Lease) -> bool:
        """See Gpus."""
        if not all(self._has(lease, name) for name in lease.names):
            return False
        self._hold(lease)
        return True

    async def release(self, lease: Lease) -> None:
        """See Gpus."""
        for name in lease.names:
            if self._has(lease, name):
                del self._held[name]

    def _hold(self, lease: Lease) -> None:
        for name in lease.names:
            self._held[name] = (lease, self._clock() + self._seconds)

    def _has(self, lease: Lease, name: str) -> bool:
        return self._owner(name) == lease.owner and self._held[name][0].fence == lease.fence

    def _owner(self, name: str) -> str | None:
        if name not in self._held or self._held[name][1] <= self._clock():
            return None
        return self._held[name][0].owner
