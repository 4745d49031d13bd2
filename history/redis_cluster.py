"""The way to the node of a cluster that has a key's slot, wherever the slot goes."""

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

from history.redis_client import cluster_map
from history.redis_place import Address, RedisPlace
from history.redis_route import Lookout, connector, pause
from history.redis_wire import Wire

_FOLLOW_AT_ONCE = 3


class ClusterRoute:
    """The node that has a key's slot, by the map that the nodes hand out."""

    def __init__(self, place: RedisPlace, *, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s / 4
        self._map = cluster_map(place, timeout_s=self._timeout_s).nodes_manager
        self._lookout = Lookout(self._look)
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
            case MovedError() if error.host and attempt < _FOLLOW_AT_ONCE:
                await self._map.move_slot(error)
            case AskError() if error.host and not isinstance(error, MovedError):
                return self._wire_to((error.host, error.port))
            case TryAgainError():
                await pause(error, attempt, until)
            case AuthenticationError() | AuthorizationError():
                raise error
            case (
                # Two nodes that each name the other for a moment, or do not know by which name we know them.
                AskError()
                | ClusterDownError()
                | ReadOnlyError()
                | RedisConnectionError()
                | RedisTimeoutError()
            ):
                self.doubt()
                await pause(error, attempt, until)
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
            wire = Wire(connector(self._place, address, self._timeout_s))
            self._wires[address] = wire
        return wire

    async def _look(self) -> None:
        try:
            await self._map.initialize()
        except (RedisClusterException, IndexError) as error:  # the latter where no node has any slot
            raise RedisConnectionError(f"the cluster gives no map of its slots: {error}") from error
        known = {(node.host, int(node.port)) for node in self._map.nodes_cache.values()}
        for address in self._wires.keys() - known:
            await self._wires.pop(address).close()
