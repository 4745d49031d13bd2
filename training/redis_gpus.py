"""Who has which GPU, in Redis: one key a GPU, which runs out, and one counter of fences, all in one slot.

friendo:gpus:{gpus}:fence     the newest lease's fence; a lease under a smaller one is outdated
friendo:gpus:{gpus}:gpu:<name> hash    owner, fence
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis.asyncio
from redis.exceptions import RedisError

from training.errors import StoreUnavailable
from training.ports import Lease

_PREFIX = "friendo:gpus:{gpus}:"


class RedisGpus:
    """Gpus over a client that its owner opens and closes; leases run for `seconds`."""

    def __init__(self, client: "redis.asyncio.Redis", *, seconds: float) -> None:
        self._milliseconds = int(1000 * seconds)
        self._acquire = client.register_script(_script("acquire"))
        self._renew = client.register_script(_script("renew"))

    async def acquire(self, names: tuple[str, ...], owner: str) -> Lease | None:
        """See Gpus."""
        with _translated():
            fence = await self._acquire([f"{_PREFIX}fence", *_keys(names)], [owner, self._milliseconds])
        return Lease(names, owner, int(fence)) if fence else None

    async def renew(self, lease: Lease) -> bool:
        """See Gpus."""
        with _translated():
            return bool(await self._renew(_keys(lease.names), [lease.fence, self._milliseconds]))

    async def release(self, lease: Lease) -> None:
        """See Gpus."""
        with _translated():
            await self._renew(_keys(lease.names), [lease.fence, 0])


def _keys(names: tuple[str, ...]) -> list[str]:
    return [f"{_PREFIX}gpu:{name}" for name in names]


def _script(name: str) -> str:
    return Path(__file__).with_name(f"redis_gpus.{name}.lua").read_text()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the job store did not answer: {error}") from error
