"""The way to the server that has a key, and back to it after a failover or when its slot was moved.

Three kinds of place, one interface. What the servers themselves say is found out by redis-py: the map of a
cluster (`redis_cluster`), the master that sentinels agree on (`redis_sentinel`). A call that failed asks
`after` what to do: go on, perhaps to another server, or give up with the error that it has.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from history.redis_client import connection
from history.redis_place import Address, RedisPlace
from history.redis_wire import Wire

_LOOK_EVERY_S = 0.05
_WATCH_EVERY_S = 1.0
_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.1


class Route(Protocol):
    """The way to the servers of one place."""

    async def wire(self, key: bytes | None, /) -> Wire:
        """The server that has this key; without one, some server whose answer means that the place is up."""

    async def after(self, error: RedisError, attempt: int, until: float, /) -> Wire | None:
        """Raise the error, or return to let the call try again.

        It goes to the wire returned, with an `ASKING` before it, else to `wire(key)`. `attempt` counts from
        0, `until` is by the event loop's clock.
        """

    def doubt(self) -> None:
        """A call got no answer in time: find out again where things are, before the next one."""

    async def close(self) -> None:
        """Close all connections."""


class ServerRoute:
    """One server, always the same. Nobody takes over for it, so a call that failed is sent once more only."""

    def __init__(self, place: RedisPlace, *, timeout_s: float) -> None:
        address = place.addresses[0] if place.addresses else None
        self._wire = Wire(connector(place, address, timeout_s))

    async def wire(self, _: bytes | None) -> Wire:
        """See `Route`."""
        return self._wire

    async def after(self, error: RedisError, attempt: int, _: float) -> Wire | None:
        """See `Route`."""
        if attempt or not isinstance(error, RedisConnectionError):
            raise error
        return None

    def doubt(self) -> None:
        """See `Route`: it is where it is."""

    async def close(self) -> None:
        """See `Route`."""
        await self._wire.close()


class Lookout:
    """Finds out when in doubt: one at a time for all calls, and not more often than every so often."""

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._lock = asyncio.Lock()
        self._doubts = 1
        self._settled = 0
        """How many of the doubts came before the last look that found something."""
        self._looked_at = float("-inf")

    async def certain(self) -> None:
        """Return when somebody has looked since the last doubt, or has just looked anyway."""
        if self._settled == self._doubts:
            return
        async with self._lock:
            clock, doubts = asyncio.get_running_loop().time, self._doubts
            just_looked = self._settled and clock() - self._looked_at < _LOOK_EVERY_S
            if self._settled == doubts or just_looked:
                return
            try:
                await self._look()
            except RedisError:
                # What is known stays, until somebody knows better: its server may be quite well.
                if not self._settled:
                    raise
            finally:
                self._looked_at = clock()
            self._settled = doubts

    async def watch(self) -> None:
        """Look every now and then without a doubt, until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            async with self._lock:
                # Nobody has a doubt, so whoever does not answer now is no reason to stop.
                with contextlib.suppress(RedisError):
                    await self._look()

    def doubt(self) -> None:
        """What was found may be outdated."""
        self._doubts += 1


def connector(
    place: RedisPlace, address: Address | None, connect_s: float, **options: object
) -> Callable[[], AbstractConnection]:
    """What makes connections to one server of the place.

    They have no timeout but that for connecting: one goes around the whole call.
    """
    return partial(
        connection,
        place,
        address,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=connect_s,
        driver_info=None,
        **options,
    )


async def pause(error: RedisError, attempt: int, until: float) -> None:
    """Wait a little, longer each time; raise the error if the next try would come too late."""
    pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * attempt)
    if asyncio.get_running_loop().time() + pause_s >= until:
        raise error
    await asyncio.sleep(pause_s)
