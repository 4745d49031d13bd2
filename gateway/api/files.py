"""`/v1/files`: OpenAI's file objects over the folder that training reads."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from gateway.api.conversation_body import whole_number
from gateway.api.conversations import Identify, as_endpoint
from gateway.api.upload_form import MAX_FIELDS_BYTES, UploadForm
from gateway.errors import BadRequest
from gateway.fine_tuning import Training
from training.errors import FileTooLarge
from training.ports import Purpose, StoredFile

PATH = "/v1/files"
_MOST = 10_000
_MISSING = "missing_required_parameter"
_FOR_UPLOADS: tuple[Purpose, ...] = ("fine-tune", "evals")


class FileRoutes:
    """The handlers. `clock`: Unix seconds."""

    def __init__(self, training: Training, identify: Identify, clock: Callable[[], float]) -> None:
        self._training = training
        self._identify = identify
        self._clock = clock

    def router(self) -> APIRouter:
        """All routes."""
        routes = APIRouter(prefix=PATH, default_response_class=Response)
        for method, path, handler in (
            ("POST", "", self.create),
            ("GET", "", self.list),
            ("GET", "/{file_id}", self.retrieve),
            ("DELETE", "/{file_id}", self.delete),
        ):
            routes.add_api_route(path, as_endpoint(handler), methods=[method], response_model=None)
        routes.add_api_route("/{file_id}/content", self.content, methods=["GET"], response_model=None)
        return routes

    async def create(self, request: Request) -> dict[str, Any]:
        """An uploaded file, on the disk before this answers."""
        tenant, files = self._identify(request).tenant, self._training.need_files()
        most = self._training.max_file_bytes
        announced = whole_number(request.headers.get("content-length", ""))
        if announced is not None and announced > most + MAX_FIELDS_BYTES:
            raise FileTooLarge(most)
        form = UploadForm(request, max_file_bytes=most)
        await form.open()
        async with aclosing(_not_empty(form.content())) as content:
            return file_object(
                await files.create(
                    tenant, form.filename, lambda: _purpose(form.fields), content, now=self._clock()
                )
            )

    async def list(self, request: Request) -> dict[str, Any]:
        """A page of a tenant's files."""
        tenant, query = self._identify(request).tenant, request.query_params
        order, after, purpose = query.get("order", "desc"), query.get("after"), query.get("purpose")
        limit = whole_number(query.get("limit", str(_MOST)))
        if order not in ("asc", "desc"):
            raise BadRequest("order must be asc or desc", param="order")
        if limit is None or not 1 <= limit <= _MOST:
            raise BadRequest(f"limit must be between 1 and {_MOST}", param="limit")
        found = await self._training.need_files().list(tenant)
        if order == "asc":
            found = found[::-1]
        start = 0
        if after:
            start = 1 + next((n for n, one in enumerate(found) if one.id == after), -1)
            if not start:
                raise BadRequest(f"there is no file {after}", param="after")
        rest = [one for one in found[start:] if purpose in (None, one.purpose)]
        page = rest[:limit]
        return {
            "object": "list",
            "data": [file_object(one) for one in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(rest) > limit,
        }

    async def retrieve(self, request: Request) -> dict[str, Any]:
        """What one is."""
        tenant = self._identify(request).tenant
        return file_object(await self._training.need_files().get(tenant, request.path_params["file_id"]))

    async def delete(self, request: Request) -> dict[str, Any]:
        """Nothing is left of it. A job that has not read it yet will fail."""
        tenant, file_id = self._identify(request).tenant, request.path_params["file_id"]
        await self._training.need_files().delete(tenant, file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    async def content(self, request: Request) -> Response:
        """Its bytes, as they came."""
        tenant, file_id = self._identify(request).tenant, request.path_params["file_id"]
        path = await self._training.need_files().path(tenant, file_id)
        return FileResponse(path, media_type="application/octet-stream")


def file_object(stored: StoredFile) -> dict[str, Any]:
    """A file as OpenAI shows it."""
    return {
        "id": stored.id,
        "object": "file",
        "bytes": stored.bytes,
        "created_at": int(stored.created_at),
        "filename": stored.filename,
        "purpose": stored.purpose,
        "status": "processed",
        "expires_at": None,
        "status_details": None,
        "sha256": stored.sha256,
    }


def _purpose(fields: dict[str, str]) -> Purpose:
    if extra := sorted(fields.keys() - {"purpose"}):
        name = extra[0][:64]
        reason = "files are kept until they are deleted" if name.startswith("expires_after") else "unknown"
        raise BadRequest(f"{name}: {reason}; leave it out", param=name)
    said = fields.get("purpose")
    for known in _FOR_UPLOADS:
        if said == known:
            return known
    raise BadRequest(
        f"purpose must be one of {', '.join(_FOR_UPLOADS)}", param="purpose", code=None if said else _MISSING
    )


async def _not_empty(content: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    is_empty = True
    async for piece in content:
        is_empty = is_empty and not piece
        yield piece
    if is_empty:
        raise BadRequest("the file is empty", param="file")
