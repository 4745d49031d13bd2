"""The layout of the keys: every key of a conversation in one hash slot, every key of a user in another.

    friendo:{<tenant>:<id>}:meta         hash   schema version, lease, fence, the fields of `Conversation`
    friendo:{<tenant>:<id>}:turns        list   the active branch, one msgpack `Turn` each
    friendo:{<tenant>:<id>}:digests      list   the same turns, 16 bytes per message
    friendo:{<tenant>:<id>}:wait         hash   owner -> "<arrival> <last seen, ms>"
    friendo:{<tenant>:<id>}:branches     hash   number -> msgpack [index, [Turn, …]]
    friendo:{user:<tenant>:<user>}:index      sorted set  conversation ids by order of arrival
    friendo:{user:<tenant>:<user>}:tombstone  string      there while the user counts as erased

All branches share one key, so that scripts name every key they touch before they run, as a cluster asks.
A tenant has no colon and no brace in it, and braces in ids are escaped: no two ids share a key, and
nothing in an id can end the hash tag early.
"""

from typing import NamedTuple

from history.conversation import ConversationKey
from history.store_rules import check_key, check_user

_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


class ConversationKeys(NamedTuple):
    """The keys of one conversation, all in one slot."""

    meta: bytes
    turns: bytes
    digests: bytes
    wait: bytes
    branches: bytes


class UserKeys(NamedTuple):
    """The keys of one user, all in one slot."""

    conversations: bytes
    tombstone: bytes


def conversation_keys(key: ConversationKey) -> ConversationKeys:
    """Raises `InvalidMessages` or `ValueError` where the key cannot be kept."""
    check_key(key)
    slot = b"friendo:{%b:%b}:" % (key.tenant.encode(), encode_id(key.id.translate(_ESCAPES)))
    return ConversationKeys(
        slot + b"meta", slot + b"turns", slot + b"digests", slot + b"wait", slot + b"branches"
    )


def user_keys(tenant: str, user: str) -> UserKeys:
    """Raises `InvalidMessages` or `ValueError` where the user cannot be kept."""
    check_user(tenant, user)
    slot = b"friendo:{user:%b:%b}:" % (tenant.encode(), encode_id(user.translate(_ESCAPES)))
    return UserKeys(slot + b"index", slot + b"tombstone")


def encode_id(text: str) -> bytes:
    """The bytes of an id. JSON can carry half a surrogate pair, so a strict UTF-8 would refuse some."""
    return text.encode("utf-8", "surrogatepass")


def decode_id(data: bytes) -> str:
    """The inverse of `encode_id`."""
    return data.decode("utf-8", "surrogatepass")
