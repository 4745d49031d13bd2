"""A node in a request's body, and a node as an answer shows it. Its key is never shown."""

import math
import re
from typing import Any

import msgspec

from gateway.errors import BadRequest
from gateway.nodes.adapters import AdapterSpec
from gateway.nodes.members import Member
from gateway.nodes.watch import NodeWatch
from gateway.routing.node import Node, NodeSpec
from gateway.routing.retention import Retention
from gateway.settings import FORMS

_OF_NODES = "nodes[]."
_ADAPTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,255}")


class DrainOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a drain shall end."""

    within_s: float | None = None
    """Requests that still run after this time are broken off; None: they may end."""


def read_spec(body: bytes) -> NodeSpec:
    """The node that is described. Raises `BadRequest`, with what is wrong."""
    try:
        spec = msgspec.json.decode(body, type=NodeSpec)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no node: {error}") from error
    for path, form in FORMS.items():
        name = path.removeprefix(_OF_NODES)
        if path.startswith(_OF_NODES) and name in NodeSpec.__struct_fields__:
            value = getattr(spec, name)
            if wrong := form(value):
                raise BadRequest(f"{name}: {wrong}", param=name)
    return spec


def read_adapter(body: bytes) -> AdapterSpec:
    """The adapter that is to be loaded. Raises `BadRequest`, with what is wrong."""
    try:
        spec = msgspec.json.decode(body, type=AdapterSpec)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no adapter, which has a name and a path: {error}") from error
    if not _ADAPTER.fullmatch(spec.name):
        raise BadRequest(
            "name: expected up to 256 of A-Z a-z 0-9 _ . / - and a letter or digit first", param="name"
        )
    if not spec.path or len(spec.path) > 4096:
        raise BadRequest("path: expected where the adapter lies on the node's disk", param="path")
    return spec


def read_drain(body: bytes) -> DrainOrder:
    """How the drain shall end; an empty body leaves it all its time. Raises `BadRequest`."""
    if not body.strip():
        return DrainOrder()
    try:
        order = msgspec.json.decode(body, type=DrainOrder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body may hold within_s and nothing else: {error}") from error
    if order.within_s is not None and not 0 <= order.within_s <= 86_400:
        raise BadRequest("within_s: expected seconds from 0 to 86400", param="within_s")
    return order


def node_object(node: Node, watch: NodeWatch, member: Member | None, *, now: float) -> dict[str, Any]:
    """Everything that is known of a node. `member` is None for one that is on its way out."""
    facts, rate = node.facts, node.lane.rate
    return {
        "id": node.id,
        "object": "node",
        "engine": node.spec.engine,
        "product": facts.product,
        "version": facts.version,
        "url": node.spec.url,
        "rank": node.spec.rank,
        "origin": member.origin if member else None,
        "healthy": node.is_healthy,
        "draining": node.is_draining,
        "removing": member is None,
        "breaker": node.breaker.state,
        "problem": node.problem,
        "models": sorted(node.models),
        "adapters": dict(sorted(node.parents.items())),
        "weight": node.spec.weight,
        "running": node.running,
        "pending_tokens": node.lane.pending,
        "waiting": node.waiting,
        "kv_usage": node.kv_usage,
        "kv_tokens": facts.kv_tokens,
        "block_size": node.block_size,
        "max_context": node.max_context,
        "keeps_prefixes": facts.caches,
        "reports_cached_tokens": facts.reports_cached,
        "takes_priority": facts.takes_priority,
        "template": msgspec.to_builtins(facts.template),
        "prefill_tokens_per_second": round(rate.seen, 1) if rate.samples else None,
        "kept_of_expected": None if (kept := node.truth.kept) is None else round(kept, 3),
        "shortfall": node.truth.reason,
        "kv_events": _events(node.retention, watch, now),
        "notes": list(node.notes),
    }


def _events(retention: Retention, watch: NodeWatch, now: float) -> dict[str, Any]:
    known = retention.knowledge(now)
    told: dict[str, Any] = {
        "state": known.state,
        "epoch": known.epoch,
        "horizon_s": _seconds(known.horizon_s),
    }
    if watch.feed is None:
        return {**told, "source": None}
    counts = msgspec.to_builtins(watch.feed.counts)
    return {
        **told,
        "source": watch.feed.source.endpoint,
        "connected": watch.feed.is_linked,
        **{name: value for name, value in counts.items() if isinstance(value, int)},
        "unknown_types": sorted(watch.feed.counts.unknown_types),
    }


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else round(seconds, 1)
