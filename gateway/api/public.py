"""The data plane's routes that are not hot: all but completions, which never come."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from gateway.api.chat_cycle import request_id
from gateway.api.chat_protocol import ANEW_PATH, PATHS
from gateway.api.conversations import ConversationRoutes
from gateway.api.envelope import Envelope, envelope
from gateway.api.files import FileRoutes
from gateway.api.fine_tuning import FineTuningRoutes
from gateway.api.health import Readiness, health_routes
from gateway.clock import Clock
from gateway.errors import BadRequest, GatewayError, UnknownModel
from gateway.fault_log import FaultLog
from gateway.fine_tuning import Training
from gateway.keys.key import Caller, require
from gateway.nodes.node_metrics import NodeMetrics
from gateway.nodes.roster import Roster
from gateway.ports import Authenticator
from gateway.rollout.board import Board
from gateway.telemetry import Telemetry, registry_of
from history.errors import HistoryError
from training.errors import TrainingError


def public_app(  # noqa: PLR0913 - the parts that it is put together of
    *,
    conversations: ConversationRoutes,
    training: Training,
    roster: Roster,
    rollouts: Board,
    authenticator: Authenticator,
    readiness: Readiness,
    telemetry: Telemetry,
    clock: Clock,
) -> FastAPI:
    """The ASGI application behind the chat protocol on the data port."""
    app = FastAPI(title="Friendo gateway", docs_url=None, redoc_url=None)
    app.include_router(health_routes(readiness, registry_of(telemetry, NodeMetrics(roster, clock.steady))))
    handle_faults(app, clock)

    app.include_router(conversations.router())
    check = identified(authenticator, clock)
    app.include_router(FileRoutes(training, check, clock.wall).router())
    app.include_router(FineTuningRoutes(training, check).router())

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        check(request)
        names = rollouts.names(roster.models().keys())
        return {"object": "list", "data": [_model(name) for name in sorted(names)]}

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> dict[str, Any]:
        check(request)
        if name not in roster.models() and name not in rollouts.names(roster.models().keys()):
            raise UnknownModel(name)
        return _model(name)

    _refuse_other_methods(app)
    return app


def _refuse_other_methods(app: FastAPI) -> None:
    """On the paths that the chat protocol answers: whatever else than POST comes there comes here."""

    async def not_a_post() -> None:
        raise HTTPException(405, headers={"allow": "POST"})

    for path in (*PATHS, ANEW_PATH):
        others = ["GET", "HEAD", "PUT", "PATCH", "DELETE"]
        app.add_api_route(path.decode(), not_a_post, methods=others, include_in_schema=False)


def identified(authenticator: Authenticator, clock: Clock) -> Callable[[Request], Caller]:
    """Says who is calling. Raises `InvalidKey`, `NotAllowed`."""

    def identify(request: Request) -> Caller:
        header = request.headers.get("authorization")
        caller = authenticator.authenticate(header.encode() if header else None, now=clock.wall())
        require(caller, scope="inference")
        return caller

    return identify


def handle_faults(app: FastAPI, clock: Clock) -> None:
    """Every fault of these routes in OpenAI's envelope, what the framework raises included."""
    faults = FaultLog()

    @app.exception_handler(GatewayError)
    async def fault(request: Request, error: GatewayError) -> Response:
        return _shown(request, envelope(error))

    @app.exception_handler(HistoryError)
    async def fault_of_the_history(request: Request, error: HistoryError) -> Response:
        faults.note(error, now=clock.steady())
        return _shown(request, envelope(error))

    @app.exception_handler(TrainingError)
    async def fault_of_training(request: Request, error: TrainingError) -> Response:
        faults.note(error, now=clock.steady())
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
