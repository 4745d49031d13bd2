"""What requests about conversations say: read within bounds, and checked field by field."""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway.conversations import Draft
from gateway.errors import BadRequest, BodyStalled, TooLarge
from gateway.request import bounded, check_encoding
from history.errors import InvalidMessages
from history.import_items import chat_messages, kept_message
from history.message import Message, is_persona

MAX_ITEMS = 20
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512
_MAX_COMMENT = 2_000
_MAX_PAGE = 100
_MAX_DIGITS = 12
_BODY_IDLE_S = 30.0

T = TypeVar("T")
Fields = dict[str, Any]


class Cursor(msgspec.Struct, frozen=True):
    """Which part of a list is asked for."""

    after: str | None
    limit: int
    newest_first: bool


class Spot(msgspec.Struct, frozen=True):
    """A place in a dialogue; neither: its end."""

    item: str | None = None
    turn: int | None = None


def raw_headers(request: Request) -> dict[bytes, bytes]:
    """The request's headers, as the chat path has them."""
    return dict(request.headers.raw)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises `TooLarge`, `BodyEncoded`, `BodyStalled`."""
    check_encoding(raw_headers(request))
    body = bytearray()
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_BODY_IDLE_S):
                body += await anext(stream)
        except StopAsyncIteration:
            return bytes(body)
        except TimeoutError as error:
            raise BodyStalled(_BODY_IDLE_S) from error
        except ClientDisconnect as error:
            raise BadRequest("the body ended before it was complete") from error
        if len(body) > limit:
            raise TooLarge(limit)


def read_fields(body: bytes) -> Fields:
    """The object in a body; an empty body is an empty one."""
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise BadRequest("the body must be a JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error


def read_draft(fields: Fields) -> Draft:
    """A conversation to be created. Raises `BadRequest`, `InvalidMessages`."""
    said = read_items(fields) if fields.get("items") is not None else ()
    persona, said = split_persona(said)
    metadata = read_metadata(fields)
    user = (
        _named(fields, "safety_identifier") or _named(fields, "user") or (metadata or {}).get("user_id", "")
    )
    return Draft(
        said=said,
        persona=persona or b"",
        metadata=written_metadata(metadata),
        user=bounded(user, "user"),
        character=bounded((metadata or {}).get("character", ""), "metadata.character"),
    )


def read_items(fields: Fields) -> tuple[Message, ...]:
    """The `items`, as messages. Raises `BadRequest`, `InvalidMessages` naming the item."""
    items = fields.get("items")
    if not isinstance(items, list):
        raise BadRequest("items must be an array", param="items")
    if len(items) > MAX_ITEMS:
        raise BadRequest(f"at most {MAX_ITEMS} items are added at a time", param="items")
    for at, item in enumerate(items):
        if not isinstance(item, dict):
            raise InvalidMessages("an item is an object", param=f"items[{at}]")
    return tuple(kept_message(at, one) for at, one in chat_messages(enumerate(items)))


def split_persona(said: tuple[Message, ...]) -> tuple[bytes | None, tuple[Message, ...]]:
    """A leading system message, and the rest."""
    if said and is_persona(said[0]):
        return said[0].json, said[1:]
    return None, said


def read_metadata(fields: Fields) -> dict[str, str] | None:
    """The `metadata`; None where there are none. Raises `BadRequest`."""
    metadata = fields.get("metadata")
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object", param="metadata")
    if len(metadata) > _MAX_PAIRS:
        raise BadRequest(f"metadata has at most {_MAX_PAIRS} pairs", param="metadata")
    for name, value in metadata.items():
        if len(name) > _MAX_KEY:
            raise BadRequest(f"a key of metadata has at most {_MAX_KEY} characters", param="metadata")
        if not isinstance(value, str) or len(value) > _MAX_VALUE:
            reason = f"a value of metadata is a string of at most {_MAX_VALUE} characters"
            raise BadRequest(reason, param=f"metadata.{name}")
    return metadata


def written_metadata(metadata: Mapping[str, str] | None) -> bytes:
    """Metadata as they are kept."""
    return msgspec.json.encode(metadata) if metadata else b""


def read_cursor(query: Mapping[str, str]) -> Cursor:
    """`after`, `limit` and `order` of a list. Raises `BadRequest`."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest("order must be asc or desc", param="order")
    limit = query.get("limit", "20")
    count = whole_number(limit)
    if count is None or not 1 <= count <= _MAX_PAGE:
        raise BadRequest(f"limit must be between 1 and {_MAX_PAGE}", param="limit")
    return Cursor(after=query.get("after") or None, limit=count, newest_first=order == "desc")


def read_spot(fields: Mapping[str, Any]) -> Spot:
    """Which turn is meant. Raises `BadRequest`."""
    item, turn = fields.get("item"), fields.get("turn")
    if item is not None and turn is not None:
        raise BadRequest("name an item or a turn, not both", param="turn")
    if item is not None and not isinstance(item, str):
        raise BadRequest("item must be the id of an item", param="item")
    if isinstance(turn, str):
        turn = whole_number(turn)
        if turn is None:
            raise BadRequest("turn must be a number from 0", param="turn")
    if turn is not None and (not isinstance(turn, int) or isinstance(turn, bool) or turn < 0):
        raise BadRequest("turn must be a number from 0", param="turn")
    return Spot(item=item, turn=turn)


def read_sibling(fields: Fields) -> int:
    """Which sibling is wanted. Raises `BadRequest`."""
    number = fields.get("sibling")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise BadRequest("sibling must be a number from 1", param="sibling")
    return number


class Rating(msgspec.Struct, frozen=True):
    """What somebody thinks of an answer."""

    rating: Literal["up", "down"]
    comment: str
    at: int
    """Unix seconds."""

    def json(self) -> bytes:
        """As it is kept."""
        return msgspec.json.encode(self)


def read_rating(fields: Fields, *, now: float) -> Rating | None:
    """The rating; None takes one back. Raises `BadRequest`."""
    if "rating" in fields and fields["rating"] is None:
        return None
    rating, comment = fields.get("rating"), fields.get("comment") or ""
    if rating not in ("up", "down"):
        raise BadRequest("rating must be up or down, or null to take it back", param="rating")
    if not isinstance(comment, str) or len(comment) > _MAX_COMMENT:
        raise BadRequest(f"comment is a string of at most {_MAX_COMMENT} characters", param="comment")
    return Rating(rating=rating, comment=comment, at=int(now))


def whole_number(text: str) -> int | None:
    """The number that a query's text is; None if it is none, or longer than any that means something."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _named(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be a string", param=name)
    return value or ""
