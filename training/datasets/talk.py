"""A stored conversation as it is read for a dataset, whole, and whether its user has agreed. Pure."""

from collections.abc import Mapping

import msgspec

from history.conversation import Conversation, Turn
from history.items import items_of, read_id
from history.ports import Branch

CONSENT = "training_consent"
_YES = b'"true"'


class Talk(msgspec.Struct, frozen=True):
    """All turns of a conversation, those that were replaced, and what somebody thinks of their items."""

    id: str
    conversation: Conversation
    turns: tuple[Turn, ...]
    branches: tuple[Branch, ...] = ()
    ratings: Mapping[str, bytes] = {}
    """By item; the active turns' and the branches'."""


class _Metadata(msgspec.Struct):
    training_consent: msgspec.Raw = msgspec.Raw(b"null")


class _Rating(msgspec.Struct):
    rating: str = ""


_metadata = msgspec.json.Decoder(_Metadata).decode
_rating = msgspec.json.Decoder(_Rating).decode


def consents(metadata: bytes) -> bool:
    """Whether the conversation's metadata says `"training_consent": "true"`: the string, and nothing else."""
    if not metadata:
        return False
    try:
        return bytes(_metadata(metadata).training_consent).strip() == _YES
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def verdict(turn: Turn, index: int, ratings: Mapping[str, bytes]) -> str:
    """What somebody thinks of a turn: `down` if any of its items is not liked, else `up` if one is, else
    empty.
    """
    if not ratings:
        return ""
    said = [_said(ratings[item.id]) for item in items_of(turn, index) if item.id in ratings]
    return "down" if "down" in said else "up" if "up" in said else ""


def rated_turns(ratings: Mapping[str, bytes]) -> frozenset[int]:
    """At which turns something was rated; most have nothing, and need not be looked at."""
    places = map(read_id, ratings)
    return frozenset(place.turn for place in places if place is not None)


def _said(rating: bytes) -> str:
    try:
        return _rating(rating).rating if rating else ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
