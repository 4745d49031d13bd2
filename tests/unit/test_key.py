"""Keys are made, recognised and refused by pure functions."""

import hashlib
import hmac
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.keys.errors import InvalidKey, NotAllowed
from gateway.keys.key import ENTROPY_BYTES, Caller, Grant, Key, authenticate, cache_salt, mint, require

PEPPER = b"p" * 32
NOW = 1_000.0
ENTROPY = bytes(range(ENTROPY_BYTES))


def minted(**grant: Any) -> tuple[bytes, Key]:
    """The header that carries a new key, and its record."""
    text, key = mint(Grant(tenant="acme", name="app", **grant), entropy=ENTROPY, pepper=PEPPER, now=NOW)
    return f"Bearer {text}".encode(), key


def refusal(authorization: bytes | None, key: Key, *, now: float = NOW, pepper: bytes = PEPPER) -> str:
    """What the caller is told who is not let in."""
    with pytest.raises(InvalidKey) as refused:
        authenticate(authorization, {key.id: key}, pepper=pepper, now=now)
    return str(refused.value)


def test_a_key_has_the_documented_form() -> None:
    """`fr-<id>-<43 of base64url>`, the id being the record's."""
    header, key = minted()

    match = re.fullmatch(r"Bearer fr-([a-z2-7]{16})-[A-Za-z0-9_-]{43}", header.decode())

    assert match is not None
    assert key.id == match.group(1)


def test_the_record_keeps_only_a_peppered_digest() -> None:
    """HMAC-SHA256 under the pepper, and neither the key nor its secret part."""
    header, key = minted()
    text = header.removeprefix(b"Bearer ")

    assert hmac.new(PEPPER, text, hashlib.sha256).digest() == key.digest
    assert text[-43:] not in msgspec.msgpack.encode(key)


def test_a_good_key_says_who_is_calling() -> None:
    """Tenant, id, scopes and models come from the record."""
    header, key = minted(scopes=frozenset({"admin"}), models=frozenset({"m"}))

    caller = authenticate(header, {key.id: key}, pepper=PEPPER, now=NOW)

    assert Caller("acme", key.id, frozenset({"admin"}), frozenset({"m"})) == caller


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER   "])
def test_the_scheme_is_read_in_either_case(scheme: bytes) -> None:
    """HTTP says that the name of a scheme has no case."""
    header, key = minted()

    caller = authenticate(header.replace(b"Bearer ", scheme), {key.id: key}, pepper=PEPPER, now=NOW)

    assert key.id == caller.key_id


def test_every_refusal_reads_the_same() -> None:
    """Missing, malformed, unknown, wrong, expired and revoked keys cannot be told apart."""
    header, key = minted(expires_at=NOW + 10)
    last = b"A" if header[-1:] != b"A" else b"B"
    revoked = msgspec.structs.replace(key, revoked_at=NOW)
    unknown = header.replace(key.id.encode(), b"a" * 16)

    texts = {
        refusal(None, key),
        refusal(b"", key),
        refusal(b"Basic dTpw", key),
        refusal(b"Bearer sk-other", key),
        refusal(b"Bearer \xff\xfe", key),
        refusal(header + b"A", key),
        refusal(header + b"\n", key),
        refusal(unknown, key),
        refusal(header[:-1] + last, key),
        refusal(header, key, pepper=b"q" * 32),
        refusal(header, key, now=NOW + 10),
        refusal(header, revoked),
    }

    assert len(texts) == 1


def test_a_key_works_until_the_moment_it_expires() -> None:
    """The expiry itself is already too late."""
    header, key = minted(expires_at=NOW + 10)

    assert authenticate(header, {key.id: key}, pepper=PEPPER, now=NOW + 9.999).tenant == "acme"
    refusal(header, key, now=NOW + 10)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else(authorization: bytes) -> None:
    """No header makes anything but InvalidKey."""
    _, key = minted()

    refusal(authorization, key)


@given(st.integers(0, 62), st.integers(1, 255))
def test_changing_any_byte_of_a_key_makes_it_invalid(position: int, change: int) -> None:
    """Every one of the 63 characters counts."""
    header, key = minted()
    changed = bytearray(header)
    changed[len("Bearer ") + position] ^= change

    refusal(bytes(changed), key)


def test_a_digest_of_zeros_opens_nothing_for_an_unknown_id() -> None:
    """The stand-in that an unknown id is compared with cannot be met by a record."""
    header, key = minted()

    refusal(header, msgspec.structs.replace(key, digest=bytes(32)))


def test_a_missing_scope_is_not_allowed() -> None:
    """Admin does not come with inference, nor inference with admin."""
    caller = Caller("acme", "id", frozenset({"inference"}), frozenset())

    require(caller, scope="inference")
    with pytest.raises(NotAllowed, match="scope 'admin'"):
        require(caller, scope="admin")


def test_a_key_for_some_models_is_not_allowed_others() -> None:
    """Named models are the only ones; none named means all."""
    some = Caller("acme", "id", frozenset({"inference"}), frozenset({"small"}))
    every = Caller("acme", "id", frozenset({"inference"}), frozenset())

    require(some, scope="inference", model="small")
    require(every, scope="inference", model="large")
    with pytest.raises(NotAllowed, match="model 'large'"):
        require(some, scope="inference", model="large")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a/b"}, "tenant"),
        ({"tenant": "a" * 65}, "tenant"),
        ({"tenant": "acme\n"}, "tenant"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a" * 129}, "name"),
        ({"scopes": frozenset()}, "scopes"),
        ({"scopes": frozenset({"root"})}, "scopes"),
        ({"models": frozenset({""})}, "models"),
        ({"models": frozenset(map(str, range(257)))}, "models"),
        ({"expires_at": NOW}, "expires_at"),
    ],
)
def test_a_grant_out_of_bounds_is_refused_by_name(change: dict[str, Any], param: str) -> None:
    """The error names the field that is wrong."""
    grant = msgspec.structs.replace(Grant(tenant="acme", name="app"), **change)

    with pytest.raises(BadRequest) as refused:
        mint(grant, entropy=ENTROPY, pepper=PEPPER, now=NOW)

    assert param == refused.value.param


def test_too_little_entropy_is_refused() -> None:
    """A key is never made of fewer random bytes than it has."""
    with pytest.raises(ValueError, match="random bytes"):
        mint(Grant(tenant="a", name="b"), entropy=b"short", pepper=PEPPER, now=NOW)


@given(
    st.frozensets(st.sampled_from(["inference", "admin"]), min_size=1),
    st.frozensets(st.text(min_size=1, max_size=20), max_size=5),
    st.none() | st.floats(NOW + 1, 1e12),
)
def test_a_record_survives_being_stored(
    scopes: frozenset[Any], models: frozenset[str], expires_at: float | None
) -> None:
    """Written and read, it is the same record."""
    _, key = minted(scopes=scopes, models=models, expires_at=expires_at)

    assert key == msgspec.msgpack.decode(msgspec.msgpack.encode(key), type=Key)


def test_a_tenants_salt_is_its_own_and_nobody_elses() -> None:
    """The same on every replica, and another one with another pepper."""
    salt = cache_salt("acme", pepper=PEPPER)

    assert salt == cache_salt("acme", pepper=PEPPER)
    assert 43 == len(salt)
    assert 3 == len({salt, cache_salt("acme2", pepper=PEPPER), cache_salt("acme", pepper=b"q" * 32)})
