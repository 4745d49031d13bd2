"""The key store in Redis: all keys in one slot, since every replica reads them all and they change seldom.

Whatever takes more than one command is a script, so that it is one step on a cluster as well.

    friendo:{keys}:records     hash    id → record (msgpack)
    friendo:{keys}:version     string  drawn anew at every change

Where replicas are waited for (`store.durability`), changes go over a `RedisLink`, which waits on the
connection that wrote: a revocation that a failover would lose must not count as one.

The version is drawn, not counted: a failover may lose a change and let another one take its number, and
a replica that had seen the lost one would then never read the other.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis, RedisCluster
from redis.commands.core import AsyncScript

from gateway.keys.errors import KeyExists, KeyNotFound, KeyStoreUnavailable, KeyUnreadable, TooManyKeys
from gateway.keys.key import Key
from gateway.keys.ports import MAX_KEYS, KeyTable
from history.errors import StoreUnavailable
from history.redis_client import translated
from history.redis_link import Argument, RedisLink, script_of

RECORDS = "friendo:{keys}:records"
VERSION = "friendo:{keys}:version"
_TRIES = 5


class RedisKeys:
    """A KeyStore over a client that its owner opens and closes; answers must come as bytes.

    `link`: what changes go over, if more than the master has to have them.
    """

    def __init__(
        self, client: Redis | RedisCluster, *, max_keys: int = MAX_KEYS, link: RedisLink | None = None
    ) -> None:
        self._client = client
        self._link = link
        self._max_keys = max_keys
        self._create = _script(client, "create")
        self._replace = _script(client, "replace")
        self._forget = _script(client, "forget")
        self._table = _script(client, "table")

    async def create(self, key: Key) -> None:
        """See KeyStore."""
        record = msgspec.msgpack.encode(key)
        created = await self._change(self._create, key.id, record, _new_version(), self._max_keys)
        if created == -1:
            raise TooManyKeys(self._max_keys)
        if not created:
            raise KeyExists(key.id)

    async def revoke(self, key_id: str, *, now: float) -> Key:
        """See KeyStore."""
        for _ in range(_TRIES):
            stored = await self._record(key_id)
            key = _decoded(stored)
            if key is None:
                raise KeyUnreadable(key_id)
            if key.revoked_at is not None:
                if self._link is not None:  # the first time, too few replicas may have heard of it
                    await self._change(self._replace, key_id, stored, stored, await self.version())
                return key
            revoked = msgspec.structs.replace(key, revoked_at=now)
            record = msgspec.msgpack.encode(revoked)
            if await self._change(self._replace, key_id, stored, record, _new_version()):
                return revoked
        raise KeyStoreUnavailable(f"key {key_id} kept changing while it was being revoked; try again")

    async def forget(self, key_id: str) -> None:
        """See KeyStore."""
        if not await self._change(self._forget, key_id, _new_version()):
            raise KeyNotFound(key_id)

    async def table(self) -> KeyTable:
        """See KeyStore."""
        with _translated():
            version, *stored = await self._table([RECORDS, VERSION])
        records = zip(stored[::2], stored[1::2], strict=True)
        decoded = {_text(key_id): _decoded(record) for key_id, record in records}
        return KeyTable(
            version=_text(version),
            keys=tuple(key for key in decoded.values() if key is not None),
            unreadable=tuple(key_id for key_id, key in decoded.items() if key is None),
        )

    async def version(self) -> str:
        """See KeyStore."""
        answer: Any = self._client.get(VERSION)  # typed for both of redis-py's clients at once
        with _translated():
            return _text(await answer)

    async def _change(self, script: AsyncScript, *arguments: Argument) -> Any:
        """What a script answers that changes something, once as many servers have it as are to have it."""
        with _translated():
            if self._link is None:
                return await script([RECORDS, VERSION], list(arguments))
            keys = [RECORDS.encode(), VERSION.encode()]
            return await self._link.run(script_of("keys", str(script.script)), keys, *arguments)

    async def _record(self, key_id: str) -> bytes:
        answer: Any = self._client.hget(RECORDS, key_id)
        with _translated():
            record: bytes | None = await answer
        if record is None:
            raise KeyNotFound(key_id)
        return record


def _new_version() -> str:
    return secrets.token_hex(8)


def _text(stored: bytes | None) -> str:
    return stored.decode(errors="replace") if stored is not None else ""


def _decoded(record: bytes) -> Key | None:
    try:
        return msgspec.msgpack.decode(record, type=Key)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # the table lists it as unreadable


def _script(client: Redis | RedisCluster, name: str) -> AsyncScript:
    return client.register_script(Path(__file__).with_name(f"redis_keys.{name}.lua").read_text())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        with translated(KeyStoreUnavailable, "the key store did not answer"):
            yield
    except StoreUnavailable as error:
        raise KeyStoreUnavailable(f"the key store: {error}") from error
