"""`/v1/conversations`: OpenAI's conversation objects over the stored dialogues, and what stands beside them.

Answering anew (`…/regenerate`) is no route of this file: it is a chat completion and goes the way of those.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.api.chat_cycle import request_id
from gateway.api.conversation_body import (
    raw_headers,
    read_body,
    read_cursor,
    read_draft,
    read_fields,
    read_items,
    read_metadata,
    read_rating,
    read_sibling,
    read_spot,
    split_persona,
    written_metadata,
)
from gateway.api.conversation_items import conversation_object, item_list, item_object, sibling_list
from gateway.conversations import Conversations
from gateway.errors import BadRequest
from gateway.keys.key import Caller
from history.conversation import ConversationKey

PATH = "/v1/conversations"
_ONE = "/{conversation_id}"
_ITEM = "/{conversation_id}/items/{item_id}"

Answer = dict[str, Any]
Identify = Callable[[Request], Caller]
"""Who is calling. Raises `InvalidKey`, `NotAllowed`."""


class ConversationRoutes:
    """The handlers, over one use case. `max_body`: bytes; `clock`: Unix seconds."""

    def __init__(
        self, conversations: Conversations, identify: Identify, clock: Callable[[], float], *, max_body: int
    ) -> None:
        self._conversations = conversations
        self._identify = identify
        self._clock = clock
        self._max_body = max_body

    def router(self) -> APIRouter:
        """All routes."""
        routes = APIRouter(prefix=PATH, default_response_class=Response)
        table: tuple[tuple[str, str, Callable[..., Awaitable[Answer]]], ...] = (
            ("POST", "", self.create),
            ("GET", _ONE, self.retrieve),
            ("POST", _ONE, self.update),
            ("DELETE", _ONE, self.delete),
            ("GET", f"{_ONE}/items", self.list_items),
            ("POST", f"{_ONE}/items", self.create_items),
            ("GET", _ITEM, self.retrieve_item),
            ("DELETE", _ITEM, self.delete_item),
            ("POST", f"{_ITEM}/feedback", self.rate),
            ("POST", f"{_ONE}/compact", self.compact),
            ("POST", f"{_ONE}/fork", self.fork),
            ("POST", f"{_ONE}/warm", self.warm),
            ("GET", f"{_ONE}/siblings", self.siblings),
            ("POST", f"{_ONE}/select", self.select),
        )
        for method, path, handler in table:
            routes.add_api_route(path, as_endpoint(handler), methods=[method], response_model=None)
        return routes

    async def create(self, request: Request) -> Answer:
        """A new conversation, perhaps with items."""
        caller = self._identify(request)
        draft = read_draft(await self._fields(request))
        return conversation_object(*await self._conversations.create(caller.tenant, draft))

    async def retrieve(self, request: Request) -> Answer:
        """One conversation."""
        key = self._key(request)
        return conversation_object(key.id, await self._conversations.retrieve(key))

    async def update(self, request: Request) -> Answer:
        """Other metadata."""
        key, fields = self._key(request), await self._fields(request)
        if "metadata" not in fields:
            raise BadRequest("you must provide metadata", param="metadata", code="missing_required_parameter")
        metadata = written_metadata(read_metadata(fields))
        return conversation_object(key.id, await self._conversations.describe(key, metadata))

    async def delete(self, request: Request) -> Answer:
        """Nothing is left of it."""
        key = self._key(request)
        await self._conversations.erase(key)
        return {"id": key.id, "object": "conversation.deleted", "deleted": True}

    async def list_items(self, request: Request) -> Answer:
        """A page of its items."""
        key, cursor = self._key(request), read_cursor(request.query_params)
        page = await self._conversations.page(
            key, after=cursor.after, limit=cursor.limit, newest_first=cursor.newest_first
        )
        return item_list(page)

    async def create_items(self, request: Request) -> Answer:
        """More items at its end."""
        key = self._key(request)
        said = read_items(await self._fields(request))
        if not said:
            raise BadRequest("items must not be empty", param="items")
        persona, rest = split_persona(said)
        return item_list(await self._conversations.append(key, rest, persona))

    async def retrieve_item(self, request: Request) -> Answer:
        """One item."""
        key, item_id = self._key(request), request.path_params["item_id"]
        return item_object(await self._conversations.item(key, item_id))

    async def delete_item(self, request: Request) -> Answer:
        """Refused: what was said later, and the memory, were said in view of it."""
        key = self._key(request)
        await self._conversations.item(key, request.path_params["item_id"])
        raise BadRequest(
            "items are not deleted one by one: fork the conversation up to the item before it and delete "
            "this one, or delete the whole conversation",
            param="item_id",
            code="item_delete_unsupported",
        )

    async def rate(self, request: Request) -> Answer:
        """What somebody thinks of an answer."""
        key, item_id = self._key(request), request.path_params["item_id"]
        rating = read_rating(await self._fields(request), now=self._clock())
        await self._conversations.rate(key, item_id, rating.json() if rating else b"")
        shown = {"rating": rating.rating, "comment": rating.comment or None} if rating else {"rating": None}
        return {"object": "conversation.item.feedback", "item_id": item_id, **shown}

    async def compact(self, request: Request) -> Answer:
        """The version of the memory that is due, made now."""
        caller, key = self._identify(request), self._key(request)
        body = await read_body(request, self._max_body)
        done = await self._conversations.compact(key, caller, body, raw_headers(request))
        memories = done.conversation.memories
        return {
            "id": key.id,
            "object": "conversation.compaction",
            "outcome": done.outcome or "not_due",
            "turns": done.conversation.turn_count,
            "turns_covered": memories[-1].covers_to if memories else 0,
        }

    async def fork(self, request: Request) -> Answer:
        """A copy, as far as an item or a turn."""
        key, fields = self._key(request), await self._fields(request)
        spot, metadata = read_spot(fields), read_metadata(fields)
        written = written_metadata(metadata) if metadata is not None else None
        new_id, copy = await self._conversations.fork(key, item=spot.item, turn=spot.turn, metadata=written)
        return conversation_object(new_id, copy) | {"forked_from": key.id, "turns": copy.turn_count}

    async def warm(self, request: Request) -> Answer:
        """The beginning of its next prompt, made resident on a node."""
        caller, key = self._identify(request), self._key(request)
        body = await read_body(request, self._max_body)
        done = await self._conversations.warm(key, caller, body, raw_headers(request))
        usage = done.said.usage if done is not None else None
        return {
            "id": key.id,
            "object": "conversation.warmup",
            "warmed": usage is not None,
            "prompt_tokens": usage.prompt_tokens if usage else 0,
            "cached_tokens": usage.cached if usage else 0,
        }

    async def siblings(self, request: Request) -> Answer:
        """All answers that stood at a place."""
        key, spot = self._key(request), read_spot(request.query_params)
        return sibling_list(*await self._conversations.siblings(key, item=spot.item, turn=spot.turn))

    async def select(self, request: Request) -> Answer:
        """Another answer in the place of the active one."""
        key, fields = self._key(request), await self._fields(request)
        spot = read_spot(fields)
        number = read_sibling(fields)
        return sibling_list(*await self._conversations.select(key, number, item=spot.item, turn=spot.turn))

    def _key(self, request: Request) -> ConversationKey:
        return ConversationKey(self._identify(request).tenant, request.path_params["conversation_id"])

    async def _fields(self, request: Request) -> dict[str, Any]:
        return read_fields(await read_body(request, self._max_body))


def as_endpoint(handler: Callable[..., Awaitable[Answer]]) -> Callable[[Request], Awaitable[Response]]:
    """A handler as FastAPI calls it: its answer as JSON, with the request's id."""

    async def endpoint(request: Request) -> Response:
        given = request.headers.get("x-request-id", "").encode("latin-1")
        body = msgspec.json.encode(await handler(request))
        headers = {"x-request-id": request_id({b"x-request-id": given})}
        return Response(body, media_type="application/json", headers=headers)

    return endpoint
