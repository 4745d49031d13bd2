"""What an API key is, and whether one that arrives may pass: no store, no clock, no dice.

    fr-<id: 16 of a-z2-7>-<secret: 43 of base64url>        63 characters, 256 bits of secret

The id finds the record and is no secret. Of the whole text only HMAC-SHA256(pepper, text) is kept, so a
stolen store opens nothing without the pepper, and a slow password hash is not needed: the secret cannot
be guessed. One HMAC costs about 2 µs, which is why no cache of verified keys stands in front of it: a
revocation would have to find its way into that too.
"""

import base64
import hmac
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from gateway.errors import BadRequest
from gateway.keys.errors import InvalidKey, NotAllowed

Scope = Literal["inference", "admin"]
SCOPES: tuple[Scope, ...] = ("inference", "admin")

ID_BYTES = 10
SECRET_BYTES = 32
ENTROPY_BYTES = ID_BYTES + SECRET_BYTES
MAX_NAME_LENGTH = 128
MAX_MODELS = 256

_BEARER = re.compile(rb"(?i:bearer) +(fr-([a-z2-7]{16})-[A-Za-z0-9_-]{43}) *")
_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NOBODY = bytes(32)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may use per minute; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a key gives, and to whom. Times are Unix seconds; no models means every model."""

    tenant: str
    name: str
    scopes: frozenset[Scope] = frozenset({"inference"})
    models: frozenset[str] = frozenset()
    expires_at: float | None = None
    limits: Limits = Limits()


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a key; it holds nothing from which the key could be written down again."""

    id: str
    digest: bytes
    grant: Grant
    created_at: float
    revoked_at: float | None = None


class Caller(msgspec.Struct, frozen=True):
    """Who is asking, as the rest of the gateway knows them."""

    tenant: str
    key_id: str
    scopes: frozenset[Scope]
    models: frozenset[str]
    salt: str = ""
    """Keeps the tenant's cached prefixes apart from others'; empty where all share them."""


Snapshot = Mapping[str, Key]
"""Every key by its id, as of one moment."""


def mint(grant: Grant, *, entropy: bytes, pepper: bytes, now: float) -> tuple[str, Key]:
    """The text of a new key, to be shown once, and its record.

    `entropy` is ENTROPY_BYTES from the system's random source. Raises BadRequest for a grant that names
    no tenant, no scope, or is out of bounds.
    """
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a key takes {ENTROPY_BYTES} random bytes, got {len(entropy)}")
    _check(grant, now)
    key_id = base64.b32encode(entropy[:ID_BYTES]).decode().lower()
    secret = base64.urlsafe_b64encode(entropy[ID_BYTES:]).decode().rstrip("=")
    text = f"fr-{key_id}-{secret}"
    key = Key(id=key_id, digest=_digest(text.encode(), pepper), grant=grant, created_at=now)
    return text, key


def authenticate(authorization: bytes | None, snapshot: Snapshot, *, pepper: bytes, now: float) -> Caller:
    """The caller behind an Authorization header. Raises InvalidKey, with one text for every reason.

    An unknown id costs the same work as a known one with a wrong secret.
    """
    bearer = _BEARER.fullmatch(authorization) if authorization is not None else None
    if bearer is None:
        raise InvalidKey
    text, key_id = bearer.groups()
    key = snapshot.get(key_id.decode())
    same = hmac.compare_digest(_digest(text, pepper), key.digest if key is not None else _NOBODY)
    if key is None or not same or not is_live(key, now=now):
        raise InvalidKey
    grant = key.grant
    return Caller(grant.tenant, key.id, grant.scopes, grant.models)


def cache_salt(tenant: str, *, pepper: bytes) -> str:
    """What keeps a tenant's prefixes apart on engines; nobody can guess another's, who has not the pepper.

    Its own message, so it is no digest of any key's text.
    """
    drawn = hmac.digest(pepper, b"cache salt\0" + tenant.encode(), "sha256")
    return base64.urlsafe_b64encode(drawn).decode().rstrip("=")


def is_live(key: Key, *, now: float) -> bool:
    """Neither revoked nor expired at `now`."""
    expires_at = key.grant.expires_at
    return key.revoked_at is None and (expires_at is None or now < expires_at)


def require(caller: Caller, *, scope: Scope, model: str | None = None) -> None:
    """Raises NotAllowed if the caller's key lacks the scope, or is for other models than this one."""
    if scope not in caller.scopes:
        raise NotAllowed(f"the scope '{scope}'")
    if model is not None and caller.models and model not in caller.models:
        raise NotAllowed(f"the model '{model}'")


def _digest(text: bytes, pepper: bytes) -> bytes:
    return hmac.digest(pepper, text, "sha256")


def _check(grant: Grant, now: float) -> None:
    if not _TENANT.fullmatch(grant.tenant):
        raise BadRequest("a tenant is 1 to 64 of the characters A-Z a-z 0-9 _ . -", param="tenant")
    if not grant.name.isprintable() or not 1 <= len(grant.name) <= MAX_NAME_LENGTH:
        raise BadRequest(f"a name is 1 to {MAX_NAME_LENGTH} printable characters", param="name")
    unknown = grant.scopes.difference(SCOPES)
    if unknown or not grant.scopes:
        raise BadRequest(f"a key has at least one scope of {', '.join(SCOPES)}", param="scopes")
    if len(grant.models) > MAX_MODELS or "" in grant.models:
        raise BadRequest(f"a key names at most {MAX_MODELS} models, none of them empty", param="models")
    if grant.expires_at is not None and grant.expires_at <= now:
        raise BadRequest("the expiry has to lie in the future", param="expires_at")
