"""The data plane's routes that are not hot: models and health. Chat completions never come here."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from gateway.api.chat_cycle import request_id
from gateway.api.chat_protocol import CHAT_PATH
from gateway.api.envelope import Envelope, envelope
from gateway.api.health import Readiness, health_routes
from gateway.errors import BadRequest, GatewayError, UnknownModel
from gateway.keys.key import require
from gateway.nodes.roster import Roster
from gateway.ports import Authenticator
from gateway.telemetry import Telemetry, registry_of


def public_app(
    *,
    roster: Roster,
    authenticator: Authenticator,
    readiness: Readiness,
    telemetry: Telemetry,
    clock: Callable[[], float],
) -> FastAPI:
    """The ASGI application behind the chat protocol on the data port."""
    app = FastAPI(title="Friendo gateway", docs_url=None, redoc_url=None)
    app.include_router(health_routes(readiness, registry_of(telemetry)))
    handle_faults(app)

    def check(request: Request) -> None:
        header = request.headers.get("authorization")
        caller = authenticator.authenticate(header.encode() if header else None, now=clock())
        require(caller, scope="inference")

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        check(request)
        return {"object": "list", "data": [_model(name) for name in sorted(roster.models())]}

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> dict[str, Any]:
        check(request)
        if name not in roster.models():
            raise UnknownModel(name)
        return _model(name)

    @app.api_route(
        CHAT_PATH.decode(), methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"], include_in_schema=False
    )
    async def not_a_post() -> None:
        raise HTTPException(405, headers={"allow": "POST"})

    return app


def handle_faults(app: FastAPI) -> None:
    """Every fault of these routes in OpenAI's envelope, what the framework raises included."""

    @app.exception_handler(GatewayError)
    async def fault(request: Request, error: GatewayError) -> Response:
        return _shown(request, envelope(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        shown = Envelope(error.status_code, "invalid_request_error", message)
        return _shown(request, shown, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"][1:]))  # the first part says where: query, path, body
        return _shown(request, envelope(BadRequest(f"{param}: {first['msg']}", param=param or None)))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        # Starlette raises it again behind this answer, and uvicorn logs it.
        return _shown(request, envelope(error))


def _shown(request: Request, shown: Envelope, own: Mapping[str, str] | None = None) -> Response:
    given = request.headers.get("x-request-id", "").encode("latin-1")
    headers = shown.response_headers(request_id({b"x-request-id": given}))
    named = {name.decode(): value.decode() for name, value in headers}
    return Response(shown.json(), shown.status, {**(own or {}), **named})


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "friendo"}
