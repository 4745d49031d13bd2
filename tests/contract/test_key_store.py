"""Both key stores keep the same promises."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.keys.errors import KeyExists, KeyNotFound, TooManyKeys
from gateway.keys.key import Grant, Key, Limits
from gateway.keys.memory_keys import MemoryKeys
from gateway.keys.ports import KeyStore
from gateway.keys.redis_keys import RECORDS, VERSION, RedisKeys
from history.redis_client import redis_client
from history.redis_place import parse_place

MAX_KEYS = 3


@pytest.fixture(params=["memory", "valkey", "cluster", "sentinel"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[KeyStore]:
    """An empty store that takes three keys."""
    if request.param == "memory":
        yield MemoryKeys(max_keys=MAX_KEYS)
        return
    place = parse_place(request.getfixturevalue(f"{request.param}_url"))
    async with redis_client(place, timeout_s=5) as client:
        await client.delete(RECORDS, VERSION)
        yield RedisKeys(client, max_keys=MAX_KEYS)


def key(key_id: str = "a") -> Key:
    """A record with every field in use."""
    grant = Grant(
        tenant="acme",
        name="app",
        scopes=frozenset({"inference", "admin"}),
        models=frozenset({"small", "large"}),
        expires_at=2_000.5,
        limits=Limits(requests_per_minute=60),
    )
    return Key(id=key_id, digest=bytes(range(32)), grant=grant, created_at=1_000.25)


async def test_an_empty_store_has_an_empty_table(store: KeyStore) -> None:
    """No key is no error."""
    table = await store.table()

    assert (table.keys, table.unreadable) == ((), ())
    assert await store.version() == table.version


async def test_what_was_stored_is_what_is_read(store: KeyStore) -> None:
    """Every field comes back."""
    await store.create(key("a"))
    await store.create(key("b"))

    table = await store.table()

    assert [key("a"), key("b")] == sorted(table.keys, key=lambda found: found.id)


async def test_a_second_key_with_the_same_id_is_refused(store: KeyStore) -> None:
    """The first one stays as it was."""
    await store.create(key())

    with pytest.raises(KeyExists):
        await store.create(msgspec.structs.replace(key(), digest=bytes(32)))

    assert (key(),) == (await store.table()).keys


async def test_a_full_store_takes_no_more(store: KeyStore) -> None:
    """The number of keys is bounded; forgetting one makes room."""
    for key_id in "abc":
        await store.create(key(key_id))
    with pytest.raises(TooManyKeys):
        await store.create(key("d"))

    await store.forget("a")
    await store.create(key("d"))

    assert {"b", "c", "d"} == {found.id for found in (await store.table()).keys}


async def test_a_revoked_key_stays_in_the_table_with_its_time(store: KeyStore) -> None:
    """Revoking marks the record and changes nothing else in it."""
    await store.create(key())

    revoked = await store.revoke("a", now=1_500.0)

    assert msgspec.structs.replace(key(), revoked_at=1_500.0) == revoked
    assert (revoked,) == (await store.table()).keys


async def test_revoking_twice_keeps_the_first_time(store: KeyStore) -> None:
    """The second revocation changes nothing, the version included."""
    await store.create(key())
    await store.revoke("a", now=1_500.0)
    version = await store.version()

    again = await store.revoke("a", now=1_600.0)

    assert again.revoked_at == 1_500.0
    assert version == await store.version()


async def test_an_unknown_key_cannot_be_revoked_or_forgotten(store: KeyStore) -> None:
    """A slip of the pen is told, not swallowed."""
    with pytest.raises(KeyNotFound):
        await store.revoke("nobody", now=0.0)
    with pytest.raises(KeyNotFound):
        await store.forget("nobody")


async def test_every_change_gives_a_version_never_seen_before(store: KeyStore) -> None:
    """Create, revoke and forget are each seen by whoever compares versions."""
    versions = [await store.version()]
    await store.create(key())
    versions.append(await store.version())
    await store.revoke("a", now=1.0)
    versions.append(await store.version())
    await store.forget("a")
    versions.append(await store.version())

    assert len(set(versions)) == 4
    assert versions[-1] == (await store.table()).version
