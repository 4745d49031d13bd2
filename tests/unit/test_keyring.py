"""The keys in memory follow the store, and outlast its absence."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.keys.errors import InvalidKey, KeyStoreUnavailable
from gateway.keys.key import ENTROPY_BYTES, Grant, Key, mint
from gateway.keys.keyring import Keyring
from gateway.keys.memory_keys import MemoryKeys
from gateway.keys.ports import KeyTable

PEPPER = b"p" * 32


class Flaky:
    """A store with a fault switch, that counts what it is asked."""

    def __init__(self) -> None:
        self.inner = MemoryKeys()
        self.is_down = False
        self.is_silent = False
        self.nonsense: Exception | None = None
        self.tables = 0

    async def create(self, key: Key) -> None:
        await self.inner.create(key)

    async def revoke(self, key_id: str, *, now: float) -> Key:
        return await self.inner.revoke(key_id, now=now)

    async def forget(self, key_id: str) -> None:
        await self.inner.forget(key_id)

    async def table(self) -> KeyTable:
        await self._maybe()
        self.tables += 1
        return await self.inner.table()

    async def version(self) -> str:
        await self._maybe()
        return await self.inner.version()

    async def _maybe(self) -> None:
        if self.is_silent:
            await asyncio.Event().wait()
        if self.is_down:
            raise KeyStoreUnavailable("the key store did not answer: refused")
        if self.nonsense is not None:
            raise self.nonsense


def new_key() -> tuple[bytes, Key]:
    """The header that carries a key, and its record."""
    text, key = mint(Grant(tenant="acme", name="app"), entropy=bytes(ENTROPY_BYTES), pepper=PEPPER, now=0)
    return f"Bearer {text}".encode(), key


async def test_a_key_works_after_loading_and_not_after_its_revocation() -> None:
    """One poll is enough for the keyring to hear of it."""
    store, (header, key) = Flaky(), new_key()
    await store.create(key)
    keyring = Keyring(store, pepper=PEPPER)
    await keyring.load()

    assert keyring.authenticate(header, now=1.0).tenant == "acme"
    await store.revoke(key.id, now=1.0)
    await keyring.refresh()
    with pytest.raises(InvalidKey):
        keyring.authenticate(header, now=1.0)


async def test_a_poll_without_a_change_reads_no_keys() -> None:
    """The table is read once at the start and once for the change."""
    store = Flaky()
    keyring = Keyring(store, pepper=PEPPER)
    await keyring.load()
    for _ in range(5):
        await keyring.refresh()
    await store.create(new_key()[1])
    for _ in range(5):
        await keyring.refresh()

    assert store.tables == 2
    assert len(keyring) == 1


async def test_an_outage_keeps_the_keys_and_is_counted() -> None:
    """Callers are served on; the count stays when the store is back, the complaint goes."""
    store, (header, key) = Flaky(), new_key()
    await store.create(key)
    keyring = Keyring(store, pepper=PEPPER)
    await keyring.load()

    store.is_down = True
    await keyring.refresh()
    await keyring.refresh()
    during = keyring.outage
    caller = keyring.authenticate(header, now=1.0)
    store.is_down = False
    await keyring.refresh()

    assert caller.tenant == "acme"
    assert during == "the key store did not answer: refused"
    assert (keyring.outages, keyring.outage) == (2, None)


async def test_a_revocation_during_an_outage_holds_once_it_is_over() -> None:
    """What was missed is caught up with."""
    store, (header, key) = Flaky(), new_key()
    await store.create(key)
    keyring = Keyring(store, pepper=PEPPER)
    await keyring.load()
    store.is_down = True
    await store.revoke(key.id, now=1.0)
    await keyring.refresh()
    assert keyring.authenticate(header, now=1.0).tenant == "acme"

    store.is_down = False
    await keyring.refresh()

    with pytest.raises(InvalidKey):
        keyring.authenticate(header, now=1.0)


async def test_a_silent_store_is_an_outage_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll is given up after a while, so that the next one can succeed."""
    monkeypatch.setattr("gateway.keys.keyring.ANSWER_WITHIN_S", 0.01)
    store = Flaky()
    keyring = Keyring(store, pepper=PEPPER)
    await keyring.load()

    store.is_silent = True
    await keyring.refresh()

    assert keyring.outages == 1


@pytest.mark.parametrize(
    "failure",
    [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), AttributeError("decode"), TypeError("unpack")],
)
async def test_an_answer_without_sense_is_an_outage_with_its_traceback_logged(failure: Exception) -> None:
    """Another server on the store's port ends no gateway, and a mistake of ours is not hidden by that."""
    store, (header, key) = Flaky(), new_key()
    await store.create(key)
    keyring = Keyring(store, pepper=PEPPER)
    await keyring.load()

    with capture_logs() as logs:
        store.nonsense = failure
        await keyring.refresh()
        await keyring.refresh()
        store.nonsense = None
        await keyring.refresh()

    assert keyring.authenticate(header, now=1.0).tenant == "acme"
    problem = f"the key store's answer makes no sense: {type(failure).__name__}"
    assert logs == [
        {"event": "key store is away", "problem": problem, "exc_info": True, "log_level": "warning"},
        {"event": "key store is back", "log_level": "info"},
    ]


async def test_a_process_does_not_start_without_its_keys() -> None:
    """The first load raises what every later one only counts."""
    store = Flaky()
    store.is_down = True

    with pytest.raises(KeyStoreUnavailable):
        await Keyring(store, pepper=PEPPER).load()


async def test_run_polls_until_it_is_cancelled() -> None:
    """It belongs to the task group of its process and ends with it."""
    store = Flaky()
    keyring = Keyring(store, pepper=PEPPER, poll_every_s=0.001)
    await keyring.load()
    polling = asyncio.ensure_future(keyring.run())
    await store.create(new_key()[1])
    for _ in range(10_000):
        if len(keyring):
            break
        await asyncio.sleep(0.001)
    polling.cancel()

    assert len(keyring) == 1

    with pytest.raises(asyncio.CancelledError):
        await polling
