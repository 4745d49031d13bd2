"""The routes of a stub node and the two ports that serve them.

The main port plays the engine; the control port answers only /stub/ and stays open while the main port
refuses connections. `serve` runs a node inside the caller's event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec

from bench.stub_node import control, inference, loras, probes, wire
from bench.stub_node.events import ConnectionCut, Events
from bench.stub_node.faults import Fault
from bench.stub_node.http1 import Connection, Connections, Request
from bench.stub_node.node import Node, new_node
from bench.stub_node.refusal import Refusal, Refused
from bench.stub_node.spec import EngineName, StubSpec

Route = Callable[[Node, Request, Connection], Awaitable[None]]
Inference = Callable[[Node, Request, Connection, Fault | None], Awaitable[None]]


async def _embed(node: Node, request: Request, connection: Connection, fault: Fault | None) -> None:  # noqa: ARG001  no stream to break
    await probes.embed(node, request, connection)


_INFERENCE: dict[str, Inference] = {
    "/v1/chat/completions": inference.chat,
    "/v1/completions": inference.text,
    "/v1/embeddings": _embed,
}
_CONTROL: dict[tuple[str, str], Route] = {
    ("GET", "/stub/stats"): control.stats,
    ("GET", "/stub/faults"): control.show_faults,
    ("POST", "/stub/reset_cache"): control.reset_cache,
}
_COMMON: dict[tuple[str, str], Route] = {
    ("GET", "/health"): probes.health,
    ("GET", "/ready"): probes.ready,
    ("GET", "/metrics"): probes.prometheus,
    ("GET", "/v1/models"): probes.models,
    ("POST", "/tokenize"): probes.tokenize,
}
_OF_ENGINE: dict[EngineName, dict[tuple[str, str], Route]] = {
    "vllm": {
        ("GET", "/version"): probes.version,
        ("GET", "/kv_event_sources"): probes.kv_event_sources,
        ("POST", "/v1/load_lora_adapter"): loras.vllm_load,
        ("POST", "/v1/unload_lora_adapter"): loras.vllm_unload,
    },
    "sglang": {
        ("GET", "/v1/loads"): probes.loads,
        ("GET", "/server_info"): probes.server_info,
        ("GET", "/get_server_info"): probes.server_info,
        ("POST", "/load_lora_adapter"): loras.sglang_load,
        ("POST", "/unload_lora_adapter"): loras.sglang_unload,
    },
    "openai": {("GET", "/props"): probes.props, ("POST", "/apply-template"): probes.apply_template},
}


class StubServer:
    """A node, its open connections and its listeners."""

    def __init__(self, spec: StubSpec, *, host: str) -> None:
        self.node = new_node(spec)
        self._host = host
        self._port = 0
        self._control_routes = _CONTROL | {("POST", "/stub/faults"): self._set_faults}
        self._routes = self._control_routes | _COMMON | _OF_ENGINE[spec.engine]
        self._connections = Connections(self._answer, keep_alive=spec.keep_alive)
        self._control_connections = Connections(self._answer_control, keep_alive=60.0)
        self._listener: asyncio.Server | None = None
        self._control_listener: asyncio.Server | None = None

    async def open(self, *, port: int, control_port: int) -> tuple[str, str]:
        """Listen; the URLs of the node and of its control port. Raises OSError when a port is taken."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connections.accept, self._host, port)
        self._control_listener = await loop.create_server(
            self._control_connections.accept, self._host, control_port
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        return self._url(self._port), self._url(self._control_listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, drop every connection, and wait for what was being answered to end."""
        for listener in (self._listener, self._control_listener):
            if listener is not None:
                listener.close()
        await self._connections.close()
        await self._control_connections.close()

    def _url(self, port: int) -> str:
        return f"http://{self._host}:{port}"

    async def _answer(self, request: Request, connection: Connection) -> None:
        run = _INFERENCE.get(request.path) if request.method == "POST" else None
        try:
            self._authorize(request)
            fault = self.node.faults.take(request.path, inference=run is not None, body=request.body)
            if run is not None:
                await self._infer(run, request, connection, fault)
            elif fault is None or not await _misbehave(self.node, fault, request, connection):
                await self._route(request)(self.node, request, connection)
        except Refused as refused:
            refusal = refused.refusal
            connection.send(refusal.status, wire.encode(self.node.dialect.error(refusal)))

    async def _infer(
        self, run: Inference, request: Request, connection: Connection, fault: Fault | None
    ) -> None:
        """Serve one inference request and count how it ended."""
        traffic = self.node.traffic
        traffic.arrived(request)
        try:
            if fault is not None and await _misbehave(self.node, fault, request, connection):
                traffic.refused += 1
                return
            await run(self.node, request, connection, fault)
        except Refused:
            traffic.refused += 1
            raise
        except asyncio.CancelledError:
            traffic.aborted += 1
            raise
        except ConnectionCut:
            traffic.aborted += 1
        else:
            traffic.finished += 1

    async def _answer_control(self, request: Request, connection: Connection) -> None:
        route = self._control_routes.get((request.method, request.path))
        if route is None:
            connection.send(404, b'{"error":"the control port serves /stub/ only"}')
            return
        try:
            await route(self.node, request, connection)
        except Refused as refused:
            connection.send(refused.refusal.status, wire.encode({"error": refused.refusal.message}))

    def _route(self, request: Request) -> Route:
        route = self._routes.get((request.method, request.path))
        if route is None:
            known = request.path in _INFERENCE or any(path == request.path for _, path in self._routes)
            status, word = (405, "Method Not Allowed") if known else (404, "Not Found")
            raise Refused(Refusal(status, "no_route", word))
        return route

    def _authorize(self, request: Request) -> None:
        key = self.node.spec.api_key
        guarded = request.path.startswith("/v1/")
        if key and guarded and request.headers.get("authorization") != f"Bearer {key}":
            raise Refused(Refusal(401, "unauthorized", "Unauthorized"))

    async def _set_faults(self, node: Node, request: Request, connection: Connection) -> None:
        """POST /stub/faults: answered once the faults hold, the main port included."""
        control.set_faults(node, request)
        await self._apply_refusal()
        await control.show_faults(node, request, connection)

    async def _apply_refusal(self) -> None:
        """Close or reopen the main port, as the faults say."""
        assert self._listener is not None
        if self.node.faults.refusing and self._listener.is_serving():
            self._listener.close()
            self._connections.drop_idle()
        elif not self.node.faults.refusing and not self._listener.is_serving():
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._connections.accept, self._host, self._port)


class _Streamed(msgspec.Struct):
    stream: bool | None = False


async def _misbehave(node: Node, fault: Fault, request: Request, connection: Connection) -> bool:
    """Faults that strike before the request is taken up; whether that was the whole answer."""
    match fault.kind:
        case "slow_headers":
            await asyncio.sleep(fault.seconds)
        case "silence":
            await asyncio.Event().wait()
        case "status":
            refusal = Refusal(fault.status, "fault", f"a fault of the stub node: {fault.status}")
            given = bytes(fault.body)
            body = wire.encode(node.dialect.error(refusal)) if given == b"null" else given
            connection.send(fault.status, body, headers=fault.headers)
            return True
        case "http200_error_first_event":
            refusal = Refusal(503, "queue_full", "The request queue is full.")
            if not wire.decode(request.body, _Streamed).stream:
                raise Refused(refusal)
            events = Events(connection, None)
            events.open()
            given = bytes(fault.body)
            body = wire.encode(node.dialect.stream_error(refusal)) if given == b"null" else given
            await events.send_bytes(b"data: %b\n\n" % body)
            await events.close()
            return True
    return False


@dataclass(frozen=True, slots=True)
class LocalStub:
    """A stub node in this process: its URLs, and the node itself for tests to look into."""

    url: str
    control_url: str
    node: Node


@asynccontextmanager
async def serve(
    spec: StubSpec, *, host: str = "127.0.0.1", port: int = 0, control_port: int = 0
) -> AsyncIterator[LocalStub]:
    """Serve one node in the running event loop until the block is left."""
    server = StubServer(spec, host=host)
    events = server.node.events
    async with AsyncExitStack() as stack:
        if spec.kv_port >= 0:
            await stack.enter_async_context(events.publishing(spec.engine, host=host, port=spec.kv_port))
        stack.push_async_callback(server.close)
        url, control_url = await server.open(port=port, control_port=control_port)
        yield LocalStub(url, control_url, server.node)
