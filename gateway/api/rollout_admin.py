"""The control plane's routes over rollouts: list, show, start, approve, widen, back, report."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Query, Request

from gateway.api.conversation_body import read_body
from gateway.errors import BadRequest
from gateway.rollout.desk import Desk
from gateway.rollout.ports import NodeView
from gateway.rollout.record import Actor, Rollout
from gateway.rollout.start_order import Reason, StartOrder

T = TypeVar("T")

_MAX_BODY = 64 * 1024


def rollout_admin_routes(desk: Desk, clock: Callable[[], float]) -> APIRouter:
    """The routes, to stand under `/admin`. `clock`: Unix seconds."""
    routes = APIRouter()

    async def shown(record: Rollout) -> dict[str, Any]:
        problems = await desk.problems(record.alias)
        return rollout_object(record) | {
            "nodes": [_node(record, node, problems.get(node.name)) for node in _hosts(record, desk)]
        }

    @routes.get("/rollouts")
    async def list_rollouts() -> dict[str, Any]:
        records = [record for _, record in sorted(desk.board.records.items())]
        return {"object": "list", "data": [rollout_object(record) for record in records]}

    @routes.post("/rollouts")
    async def start_rollout(request: Request) -> dict[str, Any]:
        order = _read(await read_body(request, _MAX_BODY), StartOrder)
        actor = Actor(_who(request, order.by), clock(), order.why)
        return await shown(await desk.start(order, actor))

    @routes.get("/rollouts/{alias:path}/report")
    async def report(alias: str, trial: Annotated[int | None, Query(ge=1)] = None) -> dict[str, Any]:
        await desk.board.tell()  # what this replica counted a moment ago belongs to it
        return await desk.report(alias, trial=trial)

    _add_decisions(routes, desk, clock, shown)

    @routes.get("/rollouts/{alias:path}")
    async def show_rollout(alias: str) -> dict[str, Any]:
        return await shown(desk.board.record(alias))

    return routes


def _add_decisions(
    routes: APIRouter,
    desk: Desk,
    clock: Callable[[], float],
    shown: Callable[[Rollout], Awaitable[dict[str, Any]]],
) -> None:
    def does(path: str, act: Callable[[str, Actor], Awaitable[Rollout]]) -> None:
        async def do(alias: str, request: Request) -> dict[str, Any]:
            body = await read_body(request, _MAX_BODY)
            reason = _read(body, Reason) if body.strip() else Reason()
            return await shown(await act(alias, Actor(_who(request, reason.by), clock(), reason.why)))

        routes.add_api_route(f"/rollouts/{{alias:path}}/{path}", do, methods=["POST"])

    does("approve", desk.approve)
    does("widen", desk.widen)
    does("back", desk.back)


def rollout_object(record: Rollout) -> dict[str, Any]:
    """A rollout as an answer shows it."""
    trial = record.trial
    return {
        "object": "rollout",
        "alias": record.alias,
        "state": trial.state if trial is not None else "settled",
        "share": trial.share if trial is not None else None,
        "current": msgspec.to_builtins(record.current),
        "trial": msgspec.to_builtins(trial),
        "earlier": msgspec.to_builtins(record.earlier),
        "leaving": msgspec.to_builtins(record.leaving),
        "turning": msgspec.to_builtins(record.turning),
        "history": msgspec.to_builtins(record.history),
        "revision": record.revision,
    }


def _hosts(record: Rollout, desk: Desk) -> list[NodeView]:
    models = {version.model for version in record.versions} | {version.name for version in record.versions}
    at = record.turning.node if record.turning is not None else ""
    return [node for node in desk.fleet.nodes() if node.models & models or node.name == at]


def _node(record: Rollout, node: NodeView, problem: str | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": node.name,
        "healthy": node.is_healthy,
        "draining": node.is_draining,
        "running": node.running,
        "versions": [one.name for one in record.versions if one.name in node.models],
        "problem": problem,
    }
    turning = record.turning
    if turning is not None and turning.node == node.name and turning.to not in node.models:
        waits = "it can be restarted now" if not node.running else f"{node.running} requests still run on it"
        told["problem"] = f"it is to be restarted with {turning.to}; {waits}"
    return told


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body does not say what it should: {error}") from error


def _who(request: Request, named: str) -> str:
    key = getattr(request.state, "key_id", "")
    return " ".join(filter(None, (named, f"(key {key})" if key else ""))) or "somebody without a key"
