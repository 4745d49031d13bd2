"""The store of rollouts in Redis: few records, read by every replica and seldom changed, and their counters.

    friendo:{rollouts}:table          hash   version, alias:<alias> (msgpack), revision:<alias>
    friendo:{rollouts}:book:<alias>   hash   <trial>|<version>|<counter>: whole numbers
    friendo:{rollouts}:ills:<alias>   hash   <node>: what is wrong there
    friendo:{rollouts}:leader         text   who acts on nodes, for some seconds

The version is drawn, not counted, as with keys: a failover may lose a change and let another take its number.
"""

import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis, RedisCluster

from gateway.rollout.errors import RolloutRefused, RolloutStoreUnavailable
from gateway.rollout.ports import MAX_ALIASES, PROBLEMS_KEPT, Counts, RolloutTable
from gateway.rollout.record import Rollout
from history.redis_client import translated

PREFIX = "friendo:{rollouts}:"
TABLE = f"{PREFIX}table"
LEADER = f"{PREFIX}leader"


class RedisRollouts:
    """A RolloutStore over a client that its owner opens and closes; answers must come as bytes."""

    def __init__(self, client: Redis | RedisCluster, *, max_aliases: int = MAX_ALIASES) -> None:
        self._client: Any = client  # typed for both of redis-py's clients at once
        self._max_aliases = max_aliases
        self._put = client.register_script(_lua("put"))
        self._count = client.register_script(_lua("count"))
        self._lead = client.register_script(_lua("lead"))

    async def version(self) -> str:
        """See RolloutStore."""
        with _translated():
            return _text(await self._client.hget(TABLE, "version"))

    async def table(self) -> RolloutTable:
        """See RolloutStore."""
        with _translated():
            fields: dict[bytes, bytes] = await self._client.hgetall(TABLE)
        records: dict[str, Rollout] = {}
        unreadable = set()
        for field, stored in fields.items():
            kind, _, alias = field.decode(errors="replace").partition(":")
            if kind != "alias":
                continue
            try:
                records[alias] = msgspec.msgpack.decode(stored, type=Rollout)
            except (msgspec.DecodeError, UnicodeDecodeError):
                unreadable.add(alias)
        return RolloutTable(_text(fields.get(b"version")), records, frozenset(unreadable))

    async def put(self, record: Rollout) -> bool:
        """See RolloutStore."""
        arguments: list[bytes | str | int] = [
            record.alias,
            msgspec.msgpack.encode(record),
            record.revision - 1,
            record.revision,
            secrets.token_hex(8),
            self._max_aliases,
        ]
        with _translated():
            stored: int = await self._put([TABLE], arguments)
        if stored == -1:
            raise RolloutRefused(f"there are {self._max_aliases} aliases, which is the limit")
        return bool(stored)

    async def count(self, alias: str, trial: int, counts: Counts) -> None:
        """See RolloutStore."""
        arguments: list[str | int] = []
        for version, counters in counts.items():
            for name, number in counters.items():
                arguments += (f"{trial}|{version}|{name}", number)
        if arguments:
            with _translated():
                await self._count([_book(alias)], arguments)

    async def counts(self, alias: str, trial: int) -> Counts:
        """See RolloutStore."""
        with _translated():
            fields: dict[bytes, bytes] = await self._client.hgetall(_book(alias))
        found: dict[str, dict[str, int]] = {}
        for field, number in fields.items():
            of, version, name = _parts(field)
            if of == str(trial):
                found.setdefault(version, {})[name] = int(number)
        return found

    async def prune(self, alias: str, before: int) -> None:
        """See RolloutStore."""
        with _translated():
            fields: list[bytes] = await self._client.hkeys(_book(alias))
            old = [field for field in fields if int(_parts(field)[0]) < before]
            if old:
                await self._client.hdel(_book(alias), *old)

    async def complain(self, alias: str, problems: Mapping[str, str]) -> None:
        """See RolloutStore."""
        kept = dict(list(problems.items())[:PROBLEMS_KEPT])
        with _translated():
            await self._client.delete(_ills(alias))
            if kept:
                await self._client.hset(_ills(alias), mapping=kept)

    async def problems(self, alias: str) -> Mapping[str, str]:
        """See RolloutStore."""
        with _translated():
            fields: dict[bytes, bytes] = await self._client.hgetall(_ills(alias))
        return {_text(node): _text(problem) for node, problem in fields.items()}

    async def lead(self, owner: str, *, for_ms: int) -> bool:
        """See RolloutStore."""
        with _translated():
            return bool(await self._lead([LEADER], [owner, for_ms]))


def _parts(field: bytes) -> tuple[str, str, str]:
    trial, _, rest = _text(field).partition("|")
    version, _, name = rest.rpartition("|")
    return trial, version, name


def _book(alias: str) -> str:
    return f"{PREFIX}book:{alias}"


def _ills(alias: str) -> str:
    return f"{PREFIX}ills:{alias}"


def _lua(name: str) -> str:
    return Path(__file__).with_name(f"redis_rollouts.{name}.lua").read_text()


def _text(stored: bytes | None) -> str:
    return stored.decode(errors="replace") if stored is not None else ""


def _translated() -> AbstractContextManager[None]:
    return translated(RolloutStoreUnavailable, "the store of rollouts did not answer")
