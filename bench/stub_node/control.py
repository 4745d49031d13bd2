"""The routes under /stub/: what a test sees of the node and does to it."""

import msgspec

from bench.stub_node import wire
from bench.stub_node.faults import Fault
from bench.stub_node.http1 import Connection, Request
from bench.stub_node.node import Node


async def stats(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /stub/stats."""
    engine, cache, traffic = node.engine, node.engine.cache, node.traffic
    connection.send(
        200,
        wire.encode(
            {
                "requests": traffic.requests,
                "finished": traffic.finished,
                "aborted": traffic.aborted,
                "refused": traffic.refused,
                "running": engine.running,
                "waiting": engine.waiting,
                "prompt_tokens": engine.totals.prompt_tokens,
                "cached_tokens": engine.totals.cached_tokens,
                "completion_tokens": engine.totals.answer_tokens,
                "block_size": cache.block_size,
                "blocks": cache.capacity,
                "blocks_held": cache.held_blocks,
                "blocks_stored": cache.stored_blocks,
                "recent": traffic.recent(),
            }
        ),
    )


def set_faults(node: Node, request: Request) -> None:
    """The body of POST /stub/faults, one fault or a list, replaces all that were set; [] clears them."""
    body = request.body.strip() or b"[]"
    many = body.startswith(b"[")
    node.faults.set(wire.decode(body, list[Fault]) if many else [wire.decode(body, Fault)])


async def show_faults(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /stub/faults."""
    connection.send(200, msgspec.json.encode({"faults": node.faults.current}))


async def reset_cache(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """POST /stub/reset_cache: forget what no running request holds."""
    connection.send(200, wire.encode({"forgotten_blocks": node.engine.cache.clear()}))
