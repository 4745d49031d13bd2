"""The way to the server that has a key, and back to it after a failover or when its slot was moved.

Three kinds of place, one interface. What the servers themselves say is found out by redis-py: the map of a
cluster, the master that sentinels agree on. A call that failed asks `after` what to do: go on, perhaps to
another server, or give up with the error that it has.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from history.redis_client import cluster_map, connection, sentinels
from history.redis_place import Address, RedisPlace
from history.redis_wire import Wire

_AWAY = (RedisConnectionError, RedisTimeoutError)
_FORBIDDEN = (AuthenticationError, AuthorizationError)
_LOOK_EVERY_S = 0.05
_WATCH_EVERY_S = 1.0
_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.1
_FOLLOW_AT_ONCE = 3


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


def route_to(place: RedisPlace, *, timeout_s: float) -> Route:
    """`timeout_s`: what a whole call may take; looking up where to go gets a part of it."""
    match place.kind:
        case "cluster":
            return ClusterRoute(place, timeout_s=timeout_s)
        case "sentinel":
            return SentinelRoute(place, timeout_s=timeout_s)
        case _:
            return ServerRoute(place, timeout_s=timeout_s)


class ServerRoute:
    """One server, always the same. Nobody takes over for it, so a call that failed is sent once more only."""

    def __init__(self, place: RedisPlace, *, timeout_s: float) -> None:
        address = place.addresses[0] if place.addresses else None
        self._wire = Wire("the server", _maker(place, address, timeout_s))

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


class SentinelRoute:
    """The master that the sentinels name. A connection is only used if its server says that it is one.

    They are asked every second, too: a master that was replaced while it was alive hears of it last, and what
    it takes until then is lost.
    """

    def __init__(self, place: RedisPlace, *, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s / 4
        self._sentinels = sentinels(place, timeout_s=self._timeout_s)
        self._lookout = _Lookout(self._look)
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
        if isinstance(error, _FORBIDDEN) or not isinstance(error, (*_AWAY, ReadOnlyError)):
            raise error
        self.doubt()
        await _pause(error, attempt, until)
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
            connect = _maker(self._place, address, self._timeout_s, redis_connect_func=_greet_master)
            self._address, self._wire = address, Wire(_name(address), connect)


class ClusterRoute:
    """The node that has a key's slot, by the map that the nodes hand out."""

    def __init__(self, place: RedisPlace, *, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s / 4
        self._map = cluster_map(place, timeout_s=self._timeout_s).nodes_manager
        self._lookout = _Lookout(self._look)
        self._wires: dict[Address, Wire] = {}
        self._pings = 0

    async def wire(self, key: bytes | None) -> Wire:
        """See `Route`. Part of the cluster is enough for a ping: its other shards may be failing over."""
        await self._lookout.certain()
        if key is None:
            masters = self._map.get_nodes_by_server_type("primary")
            self._pings += 1
            node = masters[self._pings % len(masters)]
            return self._wire_to((node.host, int(node.port)))
        slot = key_slot(key)
        try:
            node = self._map.get_node_from_slot(slot)
        except (KeyError, RedisClusterException):
            raise ClusterDownError(f"no node of the cluster has slot {slot}") from None
        return self._wire_to((node.host, int(node.port)))

    async def after(self, error: RedisError, attempt: int, until: float) -> Wire | None:
        """See `Route`."""
        match error:
            case MovedError():
                await self._map.move_slot(error)
                if attempt >= _FOLLOW_AT_ONCE:  # two nodes that each name the other, for a moment
                    self.doubt()
                    await _pause(error, attempt, until)
            case AskError():
                return self._wire_to((error.host, error.port))
            case TryAgainError():
                await _pause(error, attempt, until)
            case AuthenticationError() | AuthorizationError():
                raise error
            case ClusterDownError() | ReadOnlyError() | RedisConnectionError() | RedisTimeoutError():
                self.doubt()
                await _pause(error, attempt, until)
            case _:
                raise error
        return None

    def doubt(self) -> None:
        """See `Route`."""
        self._lookout.doubt()

    async def close(self) -> None:
        """See `Route`."""
        await self._map.aclose()
        await self._map.aclose("startup_nodes")
        for wire in self._wires.values():
            await wire.close()

    def _wire_to(self, address: Address) -> Wire:
        wire = self._wires.get(address)
        if wire is None:
            wire = Wire(_name(address), _maker(self._place, address, self._timeout_s))
            self._wires[address] = wire
        return wire

    async def _look(self) -> None:
        try:
            await self._map.initialize()
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error
        known = {(node.host, int(node.port)) for node in self._map.nodes_cache.values()}
        for address in self._wires.keys() - known:
            await self._wires.pop(address).close()


class _Lookout:
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
            now, doubts = asyncio.get_running_loop().time(), self._doubts
            just_looked = self._settled and now - self._looked_at < _LOOK_EVERY_S
            if self._settled == doubts or just_looked:
                return
            self._looked_at = now
            await self._look()
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


def _maker(
    place: RedisPlace, address: Address | None, connect_s: float, **options: object
) -> Callable[[], AbstractConnection]:
    # No timeout but that for connecting: one goes around the whole call.
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


async def _greet_master(fresh: AbstractConnection) -> None:
    """What happens on a new connection to what sentinels call a master: they may be behind."""
    await fresh.on_connect()
    await fresh.send_command("ROLE")
    role = (await fresh.read_response())[0]
    if role != b"master":
        raise RedisConnectionError("the server that the sentinels name is no master any more")


async def _pause(error: RedisError, attempt: int, until: float) -> None:
    """Wait a little, longer each time; raise the error if the next try would come too late."""
    pause = min(_LONGEST_PAUSE_S, _PAUSE_S * attempt)
    if asyncio.get_running_loop().time() + pause >= until:
        raise error
    await asyncio.sleep(pause)


def _name(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
