"""Whether this gateway lives, and whether it should get traffic. Readiness tells the truth."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from gateway.fault_log import without_quotes
from gateway.routing.node import Node
from history.errors import StoreFault


class Readiness:
    """What has to hold for traffic to be welcome. `ping_store`: None where answers go on without a store."""

    def __init__(
        self, nodes: Callable[[], tuple[Node, ...]], ping_store: Callable[[], Awaitable[None]] | None
    ) -> None:
        self._nodes = nodes
        self._ping_store = ping_store
        self.is_draining = False

    async def problems(self) -> list[str]:
        """Why not; empty: ready."""
        found = []
        if self.is_draining:
            found.append("draining")
        try:
            if self._ping_store is not None:
                await self._ping_store()
        except StoreFault as fault:
            found.append(f"the store of dialogues: {without_quotes(str(fault))}")
        return found + _unserved(self._nodes())


def health_routes(readiness: Readiness, registry: CollectorRegistry) -> APIRouter:
    """`/livez`, `/readyz`, `/metrics`: open on both ports, and without a secret in them."""
    routes = APIRouter()

    @routes.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/readyz")
    async def readyz() -> JSONResponse:
        problems = await readiness.problems()
        status = "ok" if not problems else "not ready"
        return JSONResponse({"status": status, "problems": problems}, 503 if problems else 200)

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _unserved(nodes: tuple[Node, ...]) -> list[str]:
    if not nodes:
        return ["there are no nodes"]
    up = [node for node in nodes if node.is_healthy and not node.is_draining]
    if not up:
        return ["no node is healthy"]
    wanted = {model for node in nodes for model in node.spec.models}
    served = {model for node in up for model in node.models}
    return [f"no healthy node serves '{model}'" for model in sorted(wanted - served)]
