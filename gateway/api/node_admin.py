"""The control plane's routes over the nodes: list, add, drain, undrain, remove."""

import re
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request

from gateway.api.conversation_body import read_body
from gateway.api.node_body import node_object, read_adapter, read_drain, read_spec
from gateway.errors import BadRequest
from gateway.nodes.membership import Membership
from gateway.routing.node import Node

_MAX_BODY = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9_.:\[\]-]{0,127}")


def node_admin_routes(membership: Membership, clock: Callable[[], float]) -> APIRouter:
    """The routes, to stand under `/admin`."""
    routes = APIRouter()
    roster = membership.roster

    def shown(node: Node) -> dict[str, Any]:
        return node_object(node, roster.watch(node.id), membership.member(node.id), now=clock())

    @routes.get("/nodes")
    async def list_nodes() -> dict[str, Any]:
        return {"object": "list", "data": [shown(node) for node in roster.nodes]}

    @routes.post("/nodes")
    async def add_node(request: Request) -> dict[str, Any]:
        spec = read_spec(await read_body(request, _MAX_BODY))
        if not _NAME.fullmatch(spec.name):
            raise BadRequest(
                "id: expected up to 128 of A-Z a-z 0-9 _ . : - and a letter or digit first", param="id"
            )
        return shown(await membership.add(spec))

    @routes.post("/nodes/{name:path}/drain")
    async def drain_node(name: str, request: Request) -> dict[str, Any]:
        order = read_drain(await read_body(request, _MAX_BODY))
        return shown(await membership.drain(name, within_s=order.within_s))

    @routes.post("/nodes/{name:path}/undrain")
    async def undrain_node(name: str) -> dict[str, Any]:
        return shown(await membership.undrain(name))

    _add_adapter_routes(routes, membership, shown)

    @routes.delete("/nodes/{name:path}")
    async def remove_node(name: str) -> dict[str, Any]:
        await membership.remove(name)
        return {"id": name, "object": "node.deleted", "deleted": True}

    return routes


def _add_adapter_routes(
    routes: APIRouter, membership: Membership, shown: Callable[[Node], dict[str, Any]]
) -> None:
    # Before the route that removes a node, whose pattern they would match.
    @routes.post("/nodes/{name:path}/adapters")
    async def load_adapter(name: str, request: Request) -> dict[str, Any]:
        spec = read_adapter(await read_body(request, _MAX_BODY))
        watch = membership.watch(name)
        await watch.load_adapter(spec)
        return shown(watch.node)

    @routes.delete("/nodes/{name:path}/adapters/{adapter:path}")
    async def unload_adapter(name: str, adapter: str) -> dict[str, Any]:
        watch = membership.watch(name)
        await watch.unload_adapter(adapter)
        return shown(watch.node)
