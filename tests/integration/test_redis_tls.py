"""The store behind TLS: trusted by its authority only, and shown the client's certificate."""

import uuid
from pathlib import Path

import pytest

from history.conversation import ConversationKey, Turn
from history.errors import StoreUnavailable
from history.ports import Begun, Change, Claim
from history.redis_check import check_store
from history.redis_client import redis_client
from history.redis_place import Durability, parse_place
from history.redis_store import RedisStore
from tests.conftest import Valkey
from tests.redis_topologies import asking, running_cluster
from tests.tls_relay import Certificates, make_certificates, tls_relay

TURN = Turn(messages=(b'{"role":"user","content":"hello"}',), digests=bytes(16))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority of this module, a server and a client."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def turn_count(store: RedisStore) -> int:
    """How many turns a new conversation has after one."""
    key = ConversationKey(uuid.uuid4().hex, "c")
    held = await store.begin(key, Claim(owner="w", lease_ms=10_000, queue_limit=8))
    assert isinstance(held, Begun)
    return (await store.commit(key, held.lease, Change(keep=0, append=(TURN,), at=1.0))).turn_count


async def test_server_is_reached_over_tls_with_a_client_certificate(
    valkey: Valkey, certificates: Certificates
) -> None:
    """Turns, the client for API keys and the check at start all take the same options."""
    async with tls_relay(certificates, valkey.port) as port:
        place = parse_place(f"rediss://127.0.0.1:{port}/0{certificates.options()}")
        store = RedisStore(place)
        count = await turn_count(store)
        async with redis_client(place, timeout_s=5) as client:
            answered = await client.ping()
        warnings = await check_store(place, Durability(), timeout_s=5)
        await store.close()

    assert (1, True, ()) == (count, answered, warnings)


async def test_nobody_is_trusted_without_their_certificate(
    valkey: Valkey, certificates: Certificates, tmp_path: Path
) -> None:
    """A foreign authority, no client certificate, or no TLS at all: each is `StoreUnavailable`."""
    tmp_path.joinpath("other").mkdir()
    foreign = make_certificates(tmp_path / "other")
    messages = []
    async with tls_relay(certificates, valkey.port) as port:
        for url in (
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={foreign.authority}",
            f"rediss://127.0.0.1:{port}/0{certificates.options(with_client=False)}",
            f"redis://127.0.0.1:{port}/0",
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'absent.pem'}",
        ):
            store = RedisStore(url, timeout_s=2)
            with pytest.raises(StoreUnavailable) as caught:
                await store.ping()
            messages.append(str(caught.value))
            await store.close()

    assert "CERTIFICATE_VERIFY_FAILED" in messages[0]
    assert "No such file" in messages[3]


async def test_cluster_is_reached_over_tls(tmp_path: Path, certificates: Certificates) -> None:
    """Its nodes name addresses at which TLS is spoken as well."""
    with running_cluster(tmp_path) as cluster:
        first, second, third = cluster.servers
        async with (
            tls_relay(certificates, first.port) as one,
            tls_relay(certificates, second.port) as two,
            tls_relay(certificates, third.port) as three,
        ):
            for server, port in zip(cluster.servers, (one, two, three), strict=True):
                with asking(server) as client:
                    client.config_set("cluster-announce-port", port)
            cluster.wait_for_ports({one, two, three})
            store = RedisStore(f"rediss+cluster://127.0.0.1:{one}{certificates.options()}")
            counts = [await turn_count(store) for _ in range(12)]
            await store.close()

    assert [1] * 12 == counts
