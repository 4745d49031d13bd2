"""redis-py's own clients and connections for a place, whichever kind of place it is.

Turns go over `redis_link`, which is quicker; everything else that asks the store now and then (API keys,
the check at start) uses the client from here.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from history.redis_place import Address, RedisPlace


@asynccontextmanager
async def redis_client(place: RedisPlace, *, timeout_s: float) -> AsyncIterator[Redis | RedisCluster]:
    """A client that follows failovers and moved slots, closed at the end. Answers are bytes.

    `timeout_s` is for each try of a command. Raises what redis-py raises, at the first command.
    """
    options = _client_options(place) | _patience(timeout_s) | {"retry": _short_retry()}
    if place.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in place.addresses]
        cluster = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
        try:
            yield cluster
        finally:
            await cluster.aclose()
    elif place.kind == "sentinel":
        watchers = sentinels(place, timeout_s=timeout_s)
        try:
            async with watchers.master_for(place.master, db=place.database, **options) as master:
                yield master
        finally:
            await watchers.aclose()
    else:
        where = {"unix_socket_path": place.socket} if place.socket else _host_and_port(place.addresses[0])
        async with Redis(db=place.database, **where, **options) as server:
            yield server


def connection(place: RedisPlace, address: Address | None, **options: Any) -> AbstractConnection:
    """A connection to one server of the place, not opened yet; without an address, to its socket."""
    options |= _login(place) | {"db": place.database, "retry": no_retry()}
    if address is None:
        return UnixDomainSocketConnection(path=place.socket, **options)
    options |= _host_and_port(address)
    if place.tls is None:
        return Connection(**options)
    return SSLConnection(**options | dict(place.tls))


def cluster_map(place: RedisPlace, *, timeout_s: float) -> RedisCluster:
    """A client that is asked only which node has a slot."""
    nodes = [ClusterNode(host, port) for host, port in place.addresses]
    options = _client_options(place) | _patience(timeout_s)
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)


def sentinels(place: RedisPlace, *, timeout_s: float) -> Sentinel:
    """The sentinels of a place; each gets `timeout_s` for an answer."""
    options = _patience(timeout_s) | _tls(place) | {"retry": no_retry(), "driver_info": None}
    if place.sentinel_password:
        options |= {"username": place.sentinel_username or None, "password": place.sentinel_password}
    return Sentinel(place.addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # it has no types


def reason(error: Exception) -> str:
    """What redis-py says went wrong, in one line."""
    if isinstance(error, MasterNotFoundError):  # it shows its clients, with everything that they are made of
        return f"{str(error).partition(' : ')[0]} (no sentinel answers, or none of those that do knows it)"
    if isinstance(error, IndexError):  # what it raises for a cluster none of whose nodes has a slot yet
        return "the cluster's slots are nobody's"
    return str(error) or "no answer in time"


@contextmanager
def translated(fault: Callable[[str], Exception], what: str) -> Iterator[None]:
    """What redis-py raises, as a fault of ours that begins with `what`."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        raise fault(f"{what}: {reason(error)}") from error


def no_retry() -> Retry:
    """Retries are ours to decide: what may be sent twice, where to, and until when."""
    return Retry(NoBackoff(), 0)


def _short_retry() -> Retry:
    """For a connection that died while it was idle. Whoever asks again and again does so by itself."""
    return Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.1), 3)


def _client_options(place: RedisPlace) -> dict[str, Any]:
    return _login(place) | _tls(place) | {"driver_info": None}


def _login(place: RedisPlace) -> dict[str, Any]:
    return {"username": place.username or None, "password": place.password or None}


def _tls(place: RedisPlace) -> dict[str, Any]:
    return {} if place.tls is None else {"ssl": True, **place.tls}


def _patience(timeout_s: float) -> dict[str, Any]:
    return {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}


def _host_and_port(address: Address) -> dict[str, Any]:
    return {"host": address[0], "port": address[1]}
