"""Every key in this process's memory, so that a request costs no round trip to the store.

The store is asked for its version once a second, and for all keys only when that has changed: a revocation
holds on every replica within two seconds, at the price of one small read per second and replica. While the
store is away the last keys stay valid (expiry still works, it needs only the clock); that is counted and
shown, and new revocations then work as soon as the store is back.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import msgspec
import structlog

from gateway.keys.errors import KeyStoreUnavailable
from gateway.keys.key import Caller, Key, authenticate, cache_salt
from gateway.keys.ports import KeyStore

T = TypeVar("T")

POLL_EVERY_S = 1.0
ANSWER_WITHIN_S = 0.9
_NONSENSE = (ValueError, TypeError, AttributeError)
"""What reading an answer ends with that no Redis gives, or a record that somebody else wrote: a
UnicodeDecodeError is a ValueError."""

log = structlog.get_logger()


class Keyring:
    """The keys as last read. Call `load` once, then keep `run` in the process's task group.

    `isolates`: callers get their tenant's salt.
    """

    def __init__(
        self, store: KeyStore, *, pepper: bytes, poll_every_s: float = POLL_EVERY_S, isolates: bool = False
    ) -> None:
        self._store = store
        self._pepper = pepper
        self._isolates = isolates
        self._poll_every_s = poll_every_s
        self._keys: dict[str, Key] = {}
        self._version: str | None = None
        self.outages = 0
        """How many polls failed since the start."""
        self.outage: str | None = None
        """What the last poll failed with, None while the store answers."""
        self.unreadable: tuple[str, ...] = ()
        """Ids of stored keys that this program cannot read; they open nothing."""

    def __len__(self) -> int:
        return len(self._keys)

    def authenticate(self, authorization: bytes | None, *, now: float) -> Caller:
        """See `key.authenticate`; `now` is Unix time."""
        caller = authenticate(authorization, self._keys, pepper=self._pepper, now=now)
        if not self._isolates:
            return caller
        return msgspec.structs.replace(caller, salt=cache_salt(caller.tenant, pepper=self._pepper))

    async def load(self) -> None:
        """Read all keys. Raises KeyStoreUnavailable: a process that never had any keys must not serve."""
        table = await _answered(self._store.table())
        self._keys = {key.id: key for key in table.keys}
        self._version = table.version
        self.unreadable = table.unreadable

    async def refresh(self) -> None:
        """One poll: read all keys if they have changed; an outage is noted, and the keys stay as they are."""
        try:
            if await _answered(self._store.version()) != self._version:
                await self.load()
        except KeyStoreUnavailable as error:
            self.outages += 1
            if self.outage is None:
                # With its traceback where the mistake might be ours.
                is_nonsense = isinstance(error.__cause__, _NONSENSE)
                log.warning("key store is away", problem=str(error), exc_info=is_nonsense)
            self.outage = str(error)
        else:
            if self.outage is not None:
                log.info("key store is back")
            self.outage = None

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(self._poll_every_s)
            await self.refresh()


async def _answered(asked: Awaitable[T]) -> T:
    """What the store answers in time. Raises KeyStoreUnavailable for all that may be wrong out there."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await asked
    except TimeoutError:
        raise KeyStoreUnavailable(f"the key store did not answer within {ANSWER_WITHIN_S} s") from None
    except _NONSENSE as error:
        raise KeyStoreUnavailable(f"the key store's answer makes no sense: {type(error).__name__}") from error
