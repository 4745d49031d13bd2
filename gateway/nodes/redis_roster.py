"""The store of nodes in Redis: one hash, read by every replica and seldom changed.

    friendo:{nodes}:roster     hash    version          drawn anew at every change
                                       node:<name>      what was added (msgpack)
                                       drain:<name>     that it drains (msgpack)

The version is drawn, not counted, as with keys: a failover may lose a change and let another take its number.
"""

import secrets
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis, RedisCluster

from gateway.nodes.errors import NodeExists, NodeNotFound, RosterStoreUnavailable, TooManyNodes
from gateway.nodes.ports import MAX_NODES, Drain, RosterTable
from gateway.routing.node import NodeSpec
from history.redis_client import translated

T = TypeVar("T")

ROSTER = "friendo:{nodes}:roster"
_VERSION = "version"
_NODE = "node:"
_DRAIN = "drain:"


class RedisRoster:
    """A RosterStore over a client that its owner opens and closes; answers must come as bytes."""

    def __init__(self, client: Redis | RedisCluster, *, max_nodes: int = MAX_NODES) -> None:
        self._client = client
        self._max_nodes = max_nodes
        self._put = client.register_script(_lua("put"))
        self._drop = client.register_script(_lua("drop"))

    async def add(self, spec: NodeSpec) -> None:
        """See RosterStore."""
        if not await self._stored(_NODE, spec.name, spec, is_new=True):
            raise NodeExists(spec.name)

    async def forget(self, name: str) -> None:
        """See RosterStore."""
        if not await self._dropped(_NODE + name, _DRAIN + name):
            raise NodeNotFound(name)

    async def drain(self, name: str, drain: Drain) -> None:
        """See RosterStore."""
        await self._stored(_DRAIN, name, drain, is_new=False)

    async def undrain(self, name: str) -> None:
        """See RosterStore."""
        await self._dropped(_DRAIN + name)

    async def table(self) -> RosterTable:
        """See RosterStore."""
        answer: Any = self._client.hgetall(ROSTER)  # typed for both of redis-py's clients at once
        with _translated():
            fields: dict[bytes, bytes] = await answer
        specs: dict[str, NodeSpec] = {}
        drains: dict[str, Drain] = {}
        unreadable = set()
        for field, record in fields.items():
            kind, _, name = field.decode(errors="replace").partition(":")
            if kind == "node" and (spec := _decoded(record, NodeSpec)) is not None and spec.name == name:
                specs[name] = spec
            elif kind == "drain" and (drain := _decoded(record, Drain)) is not None:
                drains[name] = drain
            elif name:
                unreadable.add(name)
        return RosterTable(_text(fields.get(_VERSION.encode())), specs, drains, frozenset(unreadable))

    async def version(self) -> str:
        """See RosterStore."""
        answer: Any = self._client.hget(ROSTER, _VERSION)
        with _translated():
            return _text(await answer)

    async def _stored(self, kind: str, name: str, record: msgspec.Struct, *, is_new: bool) -> bool:
        """Whether the record was stored; not if it was to be new and there is one."""
        arguments: list[bytes | str | int] = [
            kind,
            name,
            msgspec.msgpack.encode(record),
            _new_version(),
            self._max_nodes,
            int(is_new),
        ]
        with _translated():
            stored: int = await self._put([ROSTER], arguments)
        if stored == -1:
            raise TooManyNodes(self._max_nodes)
        return bool(stored)

    async def _dropped(self, *fields: str) -> bool:
        """Whether there was the first of them, and so all were deleted."""
        with _translated():
            return bool(await self._drop([ROSTER], [_new_version(), *fields]))


def _lua(name: str) -> str:
    return Path(__file__).with_name(f"redis_roster.{name}.lua").read_text()


def _new_version() -> str:
    return secrets.token_hex(8)


def _text(stored: bytes | None) -> str:
    return stored.decode(errors="replace") if stored is not None else ""


def _decoded(record: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.msgpack.decode(record, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # the table lists it as unreadable


def _translated() -> AbstractContextManager[None]:
    return translated(RosterStoreUnavailable, "the store of nodes did not answer")
