"""The door to where keys are kept. Every method raises KeyStoreUnavailable when the store does not answer."""

from typing import Protocol

import msgspec

from gateway.keys.key import Key

MAX_KEYS = 10_000
"""How many a store takes, revoked ones included: each replica holds them all (some 5 MB at this number)."""


class KeyTable(msgspec.Struct, frozen=True):
    """All keys as of one moment.

    `version` differs after every change and says nothing else. `unreadable` are the ids of records that
    this program cannot read (a newer one wrote them): they open nothing, and the others still do.
    """

    version: str
    keys: tuple[Key, ...]
    unreadable: tuple[str, ...] = ()


class KeyStore(Protocol):
    """Where key records live."""

    async def create(self, key: Key) -> None:
        """Store a record; the same again changes nothing. Raises KeyExists, and TooManyKeys at MAX_KEYS."""

    async def revoke(self, key_id: str, *, now: float) -> Key:
        """Mark the key as revoked and return its record; a second time changes nothing.

        Raises KeyNotFound, and KeyUnreadable for a record that a newer program wrote.
        """

    async def forget(self, key_id: str) -> None:
        """Delete the record, which revokes the key too and leaves no trace of it. Raises KeyNotFound."""

    async def table(self) -> KeyTable:
        """Every key, and the version that this is, read in one step."""

    async def version(self) -> str:
        """The version of what `table` would return now: one small read."""
