"""The nodes of this replica: their connections, and what they last said of themselves.

A node is healthy once it answered its health path and told its models; it is away after two failures in a
row. What it says is polled, at most every two seconds: llama.cpp answers its metrics between batches.

A node may answer anything at all, and none of it may end the process: whatever goes wrong between here and
there is a `NodeFault`, and numbers that cannot be are unknown. A node that is away is logged once for each
thing that is wrong with it, not at every poll.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from gateway.errors import NodeBroke, NodeFault, NodeRefused, NodeSilent
from gateway.nodes.body import BodySink
from gateway.nodes.connection import NodePool, Patience
from gateway.nodes.dialect import DIALECTS, Dialect, Load, read_load
from gateway.routing.node import Node, NodeSpec

_PROBE = Patience(connect_s=2.0, first_byte_s=5.0, idle_s=5.0)
_PROBE_WITHIN_S = 10.0
"""For one path in all: a body that comes by the byte would hold up the polling for ever."""
_MAX_PROBE_BODY = 8 * 1024 * 1024
_MAX_METRICS = 1024 * 1024
"""Several times what engines send; they are searched on the event loop."""
_AWAY_AFTER = 2
_TOLD_AT_MOST = 4
"""Different problems of a node that is away; some are in the node's own words, which may go on changing."""
_MODELS_SHOWN = 8
_NAME_SHOWN = 80
_MOST = 1_000_000
"""No queue is longer and no cache block larger: a number beyond is no measurement."""

log = structlog.get_logger()


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None
    meta: Any = None

    def context(self) -> int:
        """Tokens that prompt and answer may have together, as vLLM, SGLang or llama.cpp say; else 0."""
        own = self.meta.get("n_ctx") if isinstance(self.meta, dict) else None
        return self.max_model_len or (own if isinstance(own, int) else 0)


class _Models(msgspec.Struct):
    data: list[_Model]


class _Answered(NodeBroke):
    """A probe was answered with a status other than 200."""

    def __init__(self, path: str, status: int) -> None:
        super().__init__(f"{path} answered {status}")
        self.status = status


class _OtherModels(NodeBroke):
    """The node does not serve what it is said to."""


class Roster:
    """Nodes by id. `run` polls them and has to be a task of the process's task group."""

    def __init__(self, specs: Sequence[NodeSpec], patience: Patience) -> None:
        self._nodes: dict[str, Node] = {}
        self._pools: dict[str, NodePool] = {}
        self._probes: dict[str, NodePool] = {}
        self._told: dict[str, set[str]] = {}
        self.on_lost: Callable[[str], None] = lambda _: None
        """Called with the id of a node that was healthy and is away."""
        for spec in specs:
            node = Node(spec=spec, id=spec.id or urlsplit(spec.url).netloc, models=frozenset(spec.models))
            if node.id in self._nodes:
                raise ValueError(f"two nodes are called {node.id!r}: give one of them an id")
            self._nodes[node.id] = node
            self._pools[node.id] = NodePool(spec.url, patience)
            self._probes[node.id] = NodePool(spec.url, _PROBE, limit=2)
            self._told[node.id] = set()

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

    def failed(self, node: Node, problem: str, **hints: str) -> None:
        """A request or a probe failed; after two in a row the node is away until a probe succeeds.

        A node that never was healthy is away from the first failure. `hints` go into the log.
        """
        node.failures += 1
        node.problem = problem
        if node.is_healthy and node.failures < _AWAY_AFTER:
            return
        if node.is_healthy:
            self.on_lost(node.id)
        node.is_healthy = False
        told = self._told[node.id]
        if problem not in told and len(told) < _TOLD_AT_MOST:
            told.add(problem)
            log.warning("node is away", node=node.id, problem=problem, **hints)

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
        path = dialect.health
        try:
            await self._get(node, path, _MAX_PROBE_BODY)
            if not node.is_healthy or not node.spec.models:
                path = "/v1/models"
                _learn_models(node, await self._get(node, path, _MAX_PROBE_BODY))
        except NodeFault as fault:
            tried = f"GET {node.spec.url.rstrip('/')}{path}"
            self.failed(node, str(fault), tried=tried, check=_advice(fault, node.spec))
            return
        _learn_load(node, await self._get_metrics(node), dialect)
        node.failures = 0
        if not node.is_healthy:
            node.is_healthy, node.problem = True, ""
            self._told[node.id].clear()
            log.info("node is healthy", node=node.id, models=_listed(node.models))

    async def _get_metrics(self, node: Node) -> bytes:
        """Metrics are welcome, not required: without them the load is unknown, the node not away.

        llama.cpp answers them between batches only, which can take longer than a probe waits.
        """
        try:
            return await self._get(node, "/metrics", _MAX_METRICS)
        except NodeFault:
            return b""

    async def _get(self, node: Node, path: str, limit: int) -> bytes:
        """The body of a 200 of at most `limit` bytes. Raises a `NodeFault` for everything else."""
        try:
            async with asyncio.timeout(_PROBE_WITHIN_S):
                status, body = await self._exchange(node, path, limit)
        except TimeoutError as error:
            raise NodeSilent(f"{path} was not answered whole within {_PROBE_WITHIN_S:g} s") from error
        if status != 200:
            raise _Answered(path, status)
        return body

    async def _exchange(self, node: Node, path: str, limit: int) -> tuple[int, bytes]:
        pool = self._probes[node.id]
        request = request_head("GET", path, pool, node.spec.api_key) + b"\r\n"
        exchange = await pool.send(request)
        try:
            head = await exchange.head
            sink = BodySink(limit=limit)
            exchange.pump(sink)
            await exchange.done
        finally:
            exchange.abort()
        return head.status, sink.value()


def _learn_models(node: Node, body: bytes) -> None:
    try:
        listed = msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NodeBroke(f"/v1/models is no model list: {error}") from error
    names = frozenset(model.id for model in listed)
    node.models = frozenset(node.spec.models) & names if node.spec.models else names
    if missing := frozenset(node.spec.models) - names:
        raise _OtherModels(f"it does not serve {_listed(missing)}; it serves {_listed(names) or 'nothing'}")
    node.max_context = max((model.context() for model in listed), default=0) or None


def _learn_load(node: Node, metrics: bytes, dialect: Dialect) -> None:
    try:
        load = read_load(metrics, dialect)
    except OverflowError:  # finite gauges whose sum is not
        load = Load(waiting=None, kv_usage=None, block_size=None)
    node.waiting = load.waiting if load.waiting is not None and 0 <= load.waiting <= _MOST else None
    node.kv_usage = load.kv_usage if load.kv_usage is not None and 0 <= load.kv_usage <= 1 else None
    if load.block_size is not None and 0 < load.block_size <= _MOST:
        node.block_size = load.block_size


def _advice(fault: NodeFault, spec: NodeSpec) -> str:
    """What an operator should look at."""
    match fault:
        case NodeRefused():
            return "is it running, and is this its address?"
        case NodeSilent():
            return "is it overloaded, or still loading its model?"
        case _OtherModels():
            return "the models that the configuration names for it"
        case _Answered(status=401 | 403):
            return "the api_key that the configuration has for it"
        case _Answered(status=503):
            return "is it still loading its model?"
        case _:
            return f"does an inference server listen there, and is its engine {spec.engine}?"


def _listed(names: frozenset[str]) -> str:
    """Some of the names, in order."""
    shown = ", ".join(name[:_NAME_SHOWN] for name in sorted(names)[:_MODELS_SHOWN])
    return f"{shown} and {len(names) - _MODELS_SHOWN} more" if len(names) > _MODELS_SHOWN else shown


def request_head(method: str, path: str, pool: NodePool, api_key: str) -> bytes:
    """Request line and the headers that every request to a node has."""
    authorization = b"authorization: Bearer %b\r\n" % api_key.encode() if api_key else b""
    line = f"{method} {pool.base_path}{path} HTTP/1.1\r\n".encode()
    return b"%bhost: %b\r\naccept: */*\r\n%b" % (line, pool.host_header, authorization)
