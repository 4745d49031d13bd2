"""What a store's servers are set to, held against what a store of dialogues needs: a warning for each gap.

Gaps are of two kinds. A turn that a client was told of may get lost, or a conversation may be evicted. Each
warning is one line that says which setting mends it. What a server does not let us read is said, once.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from history.redis_client import reason, redis_client
from history.redis_place import Durability, Kind, RedisPlace

OLDEST = (7, 0)
"""The oldest version of Redis that this is made for; Valkey began with 7.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What one server says of itself; None where it does not let us know."""

    name: str
    version: str | None = None
    is_cluster: bool | None = None
    is_master: bool | None = None
    replicas: int | None = None
    appendonly: bool | None = None
    policy: str | None = None
    appendfsync: str | None = None


async def check_store(place: RedisPlace, durability: Durability, *, timeout_s: float) -> tuple[str, ...]:
    """Ask every master and return the warnings; a place that does not answer is one, too."""
    try:
        async with asyncio.timeout(timeout_s), redis_client(place, timeout_s=timeout_s) as client:
            facts = [fact async for fact in _facts(client)]
    except (RedisError, RedisClusterException, OSError, TimeoutError, IndexError) as error:
        return (f"the store's settings could not be checked, it does not answer: {reason(error)}",)
    return store_warnings(facts, place.kind, durability)


def store_warnings(servers: Sequence[ServerFacts], kind: Kind, durability: Durability) -> tuple[str, ...]:
    """The warnings for these masters, each naming the servers that it is about where not all are meant."""
    told = [(server.name, text) for server in servers for text in _gaps(server, kind, durability)]
    texts = dict.fromkeys(text for _, text in told)
    return tuple(_about([name for name, other in told if other == text], servers) + text for text in texts)


def _about(names: Sequence[str], servers: Sequence[ServerFacts]) -> str:
    return "the store: " if len(names) == len(servers) else f"the store at {', '.join(names)}: "


def _gaps(server: ServerFacts, kind: Kind, durability: Durability) -> list[str]:
    gaps = []
    if server.version is not None and _number(server.version) < OLDEST:
        gaps.append(f"version {server.version} is older than 7.0, upgrade it: nothing older was tried")
    if server.is_cluster and kind != "cluster":
        gaps.append("it is part of a cluster, write store.url as redis+cluster://: others have most slots")
    if server.is_master is False:
        gaps.append("it is a replica and takes no turns, name its master in store.url")
    if server.appendonly is False:
        gaps.append("a restart may lose acknowledged turns, set appendonly yes")
    elif server.appendfsync in ("everysec", "no"):
        gaps.append(
            f"a power cut may lose acknowledged turns, set appendfsync always, not {server.appendfsync}"
        )
    if server.policy not in ("noeviction", None):
        gaps.append(f"it may evict conversations ({server.policy}), set maxmemory-policy noeviction")
    if server.replicas is not None:
        gaps += _replication_gaps(server.replicas, durability.wait_replicas)
    if unread := _unread(server):
        gaps.append(f"it does not say its {unread} (INFO or CONFIG GET is refused), check them by hand")
    return gaps


def _replication_gaps(replicas: int, wanted: int) -> list[str]:
    if replicas < wanted:
        few = f"it has {replicas} replicas and store.durability.wait_replicas is {wanted}"
        return [f"{few}, so every turn is refused: start replicas, or lower it"]
    if replicas and not wanted:
        return ["a failover may lose acknowledged turns, set store.durability.wait_replicas: 1"]
    return []


def _unread(server: ServerFacts) -> str:
    named = {
        "version and replication": server.version,
        "appendonly": server.appendonly,
        "appendfsync": server.appendfsync if server.appendonly is not False else "",
        "maxmemory-policy": server.policy,
    }
    return ", ".join(name for name, value in named.items() if value is None)


async def _facts(client: Redis | RedisCluster) -> AsyncIterator[ServerFacts]:
    if not isinstance(client, RedisCluster):
        yield await _facts_of(client, "server")
        return
    await client.initialize()
    for node in client.get_primaries():
        yield await _facts_of(client, node.name, target_nodes=node)


async def _facts_of(client: Redis | RedisCluster, name: str, **where: Any) -> ServerFacts:
    await client.execute_command("PING", **where)
    info: dict[str, Any] = await _unless_refused(client.execute_command("INFO", **where)) or {}
    config = await _unless_refused(client.execute_command("CONFIG GET", "appendfsync", **where)) or {}
    version = info.get("valkey_version") or info.get("redis_version")
    return ServerFacts(
        name=name,
        version=str(version) if version else None,
        is_cluster=bool(info["cluster_enabled"]) if "cluster_enabled" in info else None,
        is_master=info["role"] == "master" if "role" in info else None,
        replicas=info.get("connected_slaves"),
        appendonly=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        policy=info.get("maxmemory_policy"),
        appendfsync=config.get("appendfsync"),
    )


async def _unless_refused(asked: Any) -> Any:
    """The answer, or None where the ACL or a managed service refuses the command."""
    try:
        return await asked
    except ResponseError:
        return None


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
