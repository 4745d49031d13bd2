"""The layout of the keys: every key of a conversation in one hash slot, every key of a user in another.

    friendo:{<tenant>:<id>}:meta         hash   schema version, lease, fence, the fields of `Conversation`
    friendo:{<tenant>:<id>}:turns        list   the active branch, one msgpack `Turn` each
    friendo:{<tenant>:<id>}:digests      list   the same turns, 16 bytes per message
    friendo:{<tenant>:<id>}:wait         hash   owner -> "<arrival> <last seen, ms>"
    friendo:{<tenant>:<id>}:branches     hash   number -> msgpack [index, [Turn, …]]; at:<index> -> numbers
    friendo:{<tenant>:<id>}:ratings      hash   item id -> what somebody thinks of it
    friendo:{<tenant>:<id>}:vectors      list   a head, then a stamp and a vector for each archived turn
    friendo:{user:<tenant>:<digest>}:index      sorted set  conversation ids by order of arrival
    friendo:{user:<tenant>:<digest>}:tombstone  string      there while the user counts as erased
    friendo:{tenant:<tenant>}:stored    hash   turns and bytes of all its conversations, a few seconds behind
    friendo:{once}:<what>               string what some process does for all of them, until it is due again

A user is in the names of keys as a digest only: the tombstone outlives an erasure by a day, and must not say
whose it is.

All branches share one key, so that scripts name every key they touch before they run, as a cluster asks.
A tenant has no colon and no brace in it, and braces in ids are escaped: no two ids share a key, and
nothing in an id can end the hash tag early.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

from history.conversation import ConversationKey
from history.errors import InvalidMessages
from history.store_rules import check_key, check_tenant, check_user

_NAMES = (b"meta", b"turns", b"digests", b"wait", b"branches", b"ratings", b"vectors")
ALL_TOTALS = "friendo:{tenant:*}:stored"
_NEEDS_ESCAPE = re.compile("[%{}]").search
_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


class ConversationKeys(NamedTuple):
    """The keys of one conversation, all in one slot."""

    meta: bytes
    turns: bytes
    digests: bytes
    wait: bytes
    branches: bytes
    ratings: bytes
    vectors: bytes


class UserKeys(NamedTuple):
    """The keys of one user, all in one slot."""

    conversations: bytes
    tombstone: bytes


@lru_cache(maxsize=4_096)
def conversation_keys(key: ConversationKey) -> ConversationKeys:
    """Raises `InvalidMessages` or `ValueError` where the key cannot be kept."""
    check_key(key)
    conversation = key.id.translate(_ESCAPES) if _NEEDS_ESCAPE(key.id) else key.id
    slot = b"friendo:{%b:%b}:" % (key.tenant.encode(), encode_id(conversation))
    return ConversationKeys._make([slot + name for name in _NAMES])


def user_keys(tenant: str, user: str) -> UserKeys:
    """Raises `InvalidMessages` or `ValueError` where the user cannot be kept."""
    check_user(tenant, user)
    digest = hashlib.sha256(encode_id(user)).hexdigest()[:32]
    slot = b"friendo:{user:%b:%b}:" % (tenant.encode(), digest.encode())
    return UserKeys(slot + b"index", slot + b"tombstone")


def tenant_key(tenant: str) -> bytes:
    """The key of a tenant's total. Raises `ValueError` for a tenant that cannot be."""
    check_tenant(tenant)
    return b"friendo:{tenant:%b}:stored" % tenant.encode()


def once_key(what: str) -> bytes:
    """The key of what is done by one process at a time."""
    return b"friendo:{once}:%b" % what.encode()


def conversation_of(meta: bytes) -> ConversationKey | None:
    """Whose `meta` this is; None for a key that is none."""
    tag = meta.removeprefix(b"friendo:{").removesuffix(b"}:meta")
    tenant, _, escaped = tag.partition(b":")
    try:
        key = ConversationKey(tenant.decode(), _unescaped(decode_id(escaped)))
        return key if conversation_keys(key).meta == meta else None
    except (UnicodeDecodeError, InvalidMessages, ValueError):
        return None


def _unescaped(text: str) -> str:
    return text.replace("%7B", "{").replace("%7D", "}").replace("%25", "%")


def encode_id(text: str) -> bytes:
    """The bytes of an id. JSON can carry half a surrogate pair, so a strict UTF-8 would refuse some."""
    return text.encode("utf-8", "surrogatepass")


def decode_id(data: bytes) -> str:
    """The inverse of `encode_id`."""
    return data.decode("utf-8", "surrogatepass")
