"""The key store in a dictionary: for tests and for one process that forgets. It passes the contract."""

import msgspec

from gateway.keys.errors import KeyExists, KeyNotFound, TooManyKeys
from gateway.keys.key import Key
from gateway.keys.ports import MAX_KEYS, KeyTable


class MemoryKeys:
    """A KeyStore of this process alone."""

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._keys: dict[str, Key] = {}
        self._changes = 0

    async def create(self, key: Key) -> None:
        """See KeyStore."""
        if (stored := self._keys.get(key.id)) is not None:
            if stored != key:
                raise KeyExists(key.id)
            return
        if len(self._keys) >= self._max_keys:
            raise TooManyKeys(self._max_keys)
        self._put(key)

    async def revoke(self, key_id: str, *, now: float) -> Key:
        """See KeyStore."""
        key = self._keys.get(key_id)
        if key is None:
            raise KeyNotFound(key_id)
        if key.revoked_at is None:
            key = msgspec.structs.replace(key, revoked_at=now)
            self._put(key)
        return key

    async def forget(self, key_id: str) -> None:
        """See KeyStore."""
        if self._keys.pop(key_id, None) is None:
            raise KeyNotFound(key_id)
        self._changes += 1

    async def table(self) -> KeyTable:
        """See KeyStore."""
        return KeyTable(version=str(self._changes), keys=tuple(self._keys.values()))

    async def version(self) -> str:
        """See KeyStore."""
        return str(self._changes)

    def _put(self, key: Key) -> None:
        self._keys[key.id] = key
        self._changes += 1
