"""The control plane: what the caches did, and how the nodes are. Its own port, its own scope of keys."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request

from gateway.api.conversation_admin import conversation_admin_routes
from gateway.api.health import Readiness, health_routes
from gateway.api.job_admin import job_admin_routes
from gateway.api.node_admin import node_admin_routes
from gateway.api.public import handle_faults
from gateway.api.rollout_admin import rollout_admin_routes
from gateway.clock import Clock
from gateway.conversations import Conversations
from gateway.fine_tuning import Training
from gateway.keys.key import require
from gateway.nodes.membership import Membership
from gateway.nodes.node_metrics import NodeMetrics
from gateway.ports import Authenticator
from gateway.rollout.desk import Desk
from gateway.telemetry import MINUTES, CacheTally, Telemetry, registry_of
from history.growth import Growth


def admin_app(  # noqa: PLR0913 - the parts that it is put together of
    *,
    conversations: Conversations,
    membership: Membership,
    training: Training,
    rollouts: Desk,
    authenticator: Authenticator,
    readiness: Readiness,
    telemetry: Telemetry,
    growth: Growth,
    clock: Clock,
) -> FastAPI:
    """The ASGI application of the admin port."""
    app = FastAPI(title="Friendo gateway, control plane", docs_url=None, redoc_url=None)
    app.include_router(
        health_routes(readiness, registry_of(telemetry, NodeMetrics(membership.roster, clock.steady)))
    )
    handle_faults(app, clock)

    def admin_only(request: Request) -> None:
        header = request.headers.get("authorization")
        caller = authenticator.authenticate(header.encode() if header else None, now=clock.wall())
        require(caller, scope="admin")
        request.state.key_id = caller.key_id

    routes = APIRouter(prefix="/admin", dependencies=[Depends(admin_only)])

    @routes.get("/cache")
    async def cache(minutes: Annotated[int, Query(ge=1, le=MINUTES)] = 60) -> dict[str, Any]:
        report = cache_report(telemetry, minutes=minutes)
        return report | {"window": window_report(growth)}

    routes.include_router(node_admin_routes(membership, clock.steady))
    routes.include_router(conversation_admin_routes(conversations))
    routes.include_router(job_admin_routes(training))
    routes.include_router(rollout_admin_routes(rollouts, clock.wall))
    app.include_router(routes)
    return app


def cache_report(telemetry: Telemetry, *, minutes: int) -> dict[str, Any]:
    """Hits expected and actual: in all, apart by model, node, route and phase, and for the last minutes."""
    total = CacheTally()
    by = []
    for key, tally in telemetry.cache.items():
        total.merge(tally)
        by.append(
            {"model": key.model, "node": key.node, "route": key.route, "phase": key.phase} | _tally(tally)
        )
    series = [{"at": minute * 60} | _tally(tally) for minute, tally in list(telemetry.minutes)[-minutes:]]
    return {
        "total": _tally(total),
        "by": by,
        "background": {purpose: _tally(tally) for purpose, tally in telemetry.background.items()},
        "series": series,
        "events": dict(telemetry.events),
    }


def window_report(growth: Growth) -> dict[str, Any]:
    """How far windows grow on this replica, and what that was found from."""
    rule, finding = growth.newest(), growth.finding
    return {
        "policy": rule.policy,
        "min_turns": rule.min_turns,
        "max_turns": rule.max_turns,
        "is_auto": growth.is_auto,
        "finding": None if finding is None else msgspec.to_builtins(finding),
    }


def _tally(tally: CacheTally) -> dict[str, Any]:
    return {
        "answers": tally.answers,
        "answers_reporting_cache": tally.reported,
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
        "expected_tokens": tally.expected_tokens,
        "cached_tokens": tally.cached_tokens,
        "reusable_tokens": tally.reusable_tokens,
        "hit_rate": _ratio(tally.cached_tokens, tally.prompt_tokens),
        "expected_hit_rate": _ratio(tally.expected_tokens, tally.prompt_tokens),
        "share_of_reusable": _ratio(tally.cached_tokens, tally.reusable_tokens),
    }


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
