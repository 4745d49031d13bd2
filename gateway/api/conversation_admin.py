"""The control plane's view of conversations: whose there are, all that is kept of a user, and its erasure."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from gateway.conversations import Conversations, Listed

_Tenant = Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
_User = Annotated[str, Query(min_length=1, max_length=256)]
_LINES_TOGETHER = 64 * 1024


def conversation_admin_routes(conversations: Conversations) -> APIRouter:
    """The routes, to stand under `/admin`."""
    routes = APIRouter()

    @routes.get("/conversations")
    async def list_conversations(
        user: _User,
        tenant: _Tenant = "default",
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        found, has_more = await conversations.of_user(tenant, user, after=after, limit=limit)
        return {"object": "list", "data": [_listed(one) for one in found], "has_more": has_more}

    @routes.get("/users/{user:path}/export")
    async def export_user(user: str, tenant: _Tenant = "default") -> StreamingResponse:
        lines = conversations.export_user(tenant, user)
        return StreamingResponse(_together(lines), media_type="application/jsonl")

    @routes.delete("/users/{user:path}")
    async def erase_user(user: str, tenant: _Tenant = "default") -> dict[str, Any]:
        erased = await conversations.erase_user(tenant, user)
        return {"id": user, "object": "user.deleted", "deleted": True, "conversations": erased}

    return routes


async def _together(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines in pieces that are worth sending."""
    piece = bytearray()
    async for line in lines:
        piece += line
        if len(piece) >= _LINES_TOGETHER:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _listed(listed: Listed) -> dict[str, Any]:
    conversation = listed.conversation
    return {
        "id": listed.id,
        "object": "conversation",
        "created_at": int(conversation.created_at),
        "updated_at": int(conversation.updated_at),
        "character": conversation.character,
        "turns": conversation.turn_count,
        "turns_out_of_window": conversation.cut,
        "branches": conversation.branches,
    }
