"""The way to a master that sentinels watch, and to the one that takes over from it."""

import asyncio

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, AuthorizationError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from history.redis_client import sentinels
from history.redis_place import Address, RedisPlace
from history.redis_route import Lookout, connector, pause
from history.redis_wire import Wire

_FORBIDDEN = (AuthenticationError, AuthorizationError)
_MOVED_ON = (RedisConnectionError, RedisTimeoutError, ReadOnlyError)


class SentinelRoute:
    """The master that the sentinels name. A connection is only used if its server says that it is one.

    They are asked every second, too: a master that was replaced while it was alive hears of it last, and what
    it takes until then is lost.
    """

    def __init__(self, place: RedisPlace, *, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s / 4
        self._sentinels = sentinels(place, timeout_s=self._timeout_s)
        self._lookout = Lookout(self._look)
        self._address: Address | None = None
        self._wire: Wire | None = None
        self._watch: asyncio.Task[None] | None = None

    async def wire(self, _: bytes | None) -> Wire:
        """See `Route`."""
        await self._lookout.certain()
        if self._watch is None:
            self._watch = asyncio.create_task(self._lookout.watch())
        assert self._wire is not None
        return self._wire

    async def after(self, error: RedisError, attempt: int, until: float) -> Wire | None:
        """See `Route`."""
        if isinstance(error, _FORBIDDEN) or not isinstance(error, _MOVED_ON):
            raise error
        self.doubt()
        await pause(error, attempt, until)
        return None

    def doubt(self) -> None:
        """See `Route`."""
        self._lookout.doubt()

    async def close(self) -> None:
        """See `Route`."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self._sentinels.aclose()
        if self._wire is not None:
            await self._wire.close()

    async def _look(self) -> None:
        address = await self._sentinels.discover_master(self._place.master)
        if address != self._address:
            if self._wire is not None:
                await self._wire.close()
            connect = connector(self._place, address, self._timeout_s, redis_connect_func=_greet_master)
            self._address, self._wire = address, Wire(connect)


async def _greet_master(fresh: AbstractConnection) -> None:
    """What happens on a new connection to what sentinels call a master: they may be behind."""
    await fresh.on_connect()
    await fresh.send_command("ROLE")
    role = (await fresh.read_response())[0]
    if role != b"master":
        raise RedisConnectionError("the server that the sentinels name is no master any more")
