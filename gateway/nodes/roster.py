"""The nodes of this replica: their connections, and what they last said of themselves.

A node is healthy once it answered its health path and told its models; it is away after two failures in a
row. What it says is polled, at most every two seconds: llama.cpp answers its metrics between batches.
"""

import asyncio
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
import structlog

from gateway.errors import NodeBroke, NodeFault
from gateway.nodes.body import BodySink
from gateway.nodes.connection import NodePool, Patience
from gateway.nodes.dialect import DIALECTS, read_load
from gateway.routing.node import Node, NodeSpec

_PROBE = Patience(connect_s=2.0, first_byte_s=5.0, idle_s=5.0)
_MAX_PROBE_BODY = 8 * 1024 * 1024
_AWAY_AFTER = 2

log = structlog.get_logger()


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None
    meta: dict[str, msgspec.Raw] | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class Roster:
    """Nodes by id. `run` polls them and has to be a task of the process's task group."""

    def __init__(self, specs: Sequence[NodeSpec], patience: Patience) -> None:
        self._nodes: dict[str, Node] = {}
        self._pools: dict[str, NodePool] = {}
        self._probes: dict[str, NodePool] = {}
        for spec in specs:
            node = Node(spec=spec, id=spec.id or urlsplit(spec.url).netloc, models=frozenset(spec.models))
            if node.id in self._nodes:
                raise ValueError(f"two nodes are called {node.id!r}: give one of them an id")
            self._nodes[node.id] = node
            self._pools[node.id] = NodePool(spec.url, patience)
            self._probes[node.id] = NodePool(spec.url, _PROBE, limit=2)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them, healthy or not."""
        return tuple(self._nodes.values())

    def pool(self, node: str) -> NodePool:
        """The connections to a node."""
        return self._pools[node]

    def models(self) -> Mapping[str, list[str]]:
        """Every model that a healthy node serves, with the ids of those nodes."""
        served: dict[str, list[str]] = {}
        for node in self._nodes.values():
            if node.is_healthy:
                for model in node.models:
                    served.setdefault(model, []).append(node.id)
        return served

    async def run(self, *, every_s: float = 2.0) -> None:
        """Poll all nodes for ever, each at its own pace."""
        async with asyncio.TaskGroup() as tasks:
            for node in self._nodes.values():
                tasks.create_task(self._watch(node, every_s))

    async def probe_all(self) -> None:
        """Poll every node once: so that the first request finds them known."""
        await asyncio.gather(*(self._probe(node) for node in self._nodes.values()))

    def failed(self, node: Node, problem: str) -> None:
        """A request or a probe failed; after two in a row the node is away until a probe succeeds."""
        node.failures += 1
        node.problem = problem
        if node.failures >= _AWAY_AFTER and node.is_healthy:
            node.is_healthy = False
            log.warning("node is away", node=node.id, problem=problem)

    def answered(self, name: str) -> None:
        """A request was answered whole: failures before it are in a row no more."""
        self._nodes[name].failures = 0

    def close(self) -> None:
        """Drop the connections."""
        for pool in (*self._pools.values(), *self._probes.values()):
            pool.close()

    async def _watch(self, node: Node, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self._probe(node)

    async def _probe(self, node: Node) -> None:
        dialect = DIALECTS[node.spec.engine]
        try:
            await self._get(node, dialect.health)
            if not node.is_healthy or not node.spec.models:
                self._learn_models(node, await self._get(node, "/v1/models"))
            load = read_load(await self._get_metrics(node), dialect)
        except NodeFault as fault:
            self.failed(node, str(fault))
            return
        node.waiting, node.kv_usage = load.waiting, load.kv_usage
        node.block_size = load.block_size or node.block_size
        node.failures = 0
        if not node.is_healthy:
            node.is_healthy, node.problem = True, ""
            log.info("node is healthy", node=node.id, models=sorted(node.models))

    async def _get_metrics(self, node: Node) -> bytes:
        """Metrics are welcome, not required: without them the load is unknown, the node not away.

        llama.cpp answers them between batches only, which can take longer than a probe waits.
        """
        try:
            return await self._get(node, "/metrics")
        except NodeFault:
            return b""

    async def _get(self, node: Node, path: str) -> bytes:
        pool = self._probes[node.id]
        request = request_head("GET", path, pool, node.spec.api_key) + b"\r\n"
        exchange = await pool.send(request)
        try:
            head = await exchange.head
            sink = BodySink(limit=_MAX_PROBE_BODY)
            exchange.pump(sink)
            await exchange.done
        finally:
            exchange.abort()
        if head.status != 200:
            raise NodeBroke(f"{path} answered {head.status}")
        return sink.value()

    def _learn_models(self, node: Node, body: bytes) -> None:
        try:
            listed = msgspec.json.decode(body, type=_Models).data
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NodeBroke(f"/v1/models is no model list: {error}") from error
        names = frozenset(model.id for model in listed)
        node.models = frozenset(node.spec.models) & names if node.spec.models else names
        if missing := frozenset(node.spec.models) - names:
            raise NodeBroke(f"it does not serve {', '.join(sorted(missing))}")
        node.max_context = max((model.max_model_len or 0 for model in listed), default=0) or None


def request_head(method: str, path: str, pool: NodePool, api_key: str) -> bytes:
    """Request line and the headers that every request to a node has."""
    authorization = b"authorization: Bearer %b\r\n" % api_key.encode() if api_key else b""
    line = f"{method} {pool.base_path}{path} HTTP/1.1\r\n".encode()
    return b"%bhost: %b\r\naccept: */*\r\n%b" % (line, pool.host_header, authorization)
