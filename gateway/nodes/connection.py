"""HTTP/1.1 towards one node: an asyncio protocol over httptools, and a pool of such connections.

Bytes of the body are handed on in the callback in which they arrive; nothing is awaited per chunk. A
connection that sat idle for `IDLE_S` is not used again: vLLM and SGLang close theirs after 5 s, and a
request written into a closing connection is lost.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast
from urllib.parse import urlsplit
from weakref import WeakSet

import httptools
import msgspec

from gateway.errors import ClientStalled, NodeBroke, NodeRefused, NodeSilent
from gateway.nodes.addresses import LINK_LOCAL, is_link_local

IDLE_S = 3.0
_MAX_HEAD = 64 * 1024


class Patience(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a node may take, in seconds."""

    connect_s: float = 2.0
    first_byte_s: float = 120.0
    """From the request sent to the first byte of the answer; a long prompt may queue and prefill."""
    idle_s: float = 60.0
    """Between two pieces of a body."""
    total_s: float = 600.0
    """For one answer in all: the wait for a node and every node tried. Kept by `gateway.dispatch`."""
    ping_s: float = 15.0
    """Between two comments to a streaming client whose answer does not begin; 0: none. Kept there, too."""


class Head(msgspec.Struct, frozen=True):
    """A response's status and headers, names in lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    def get(self, name: bytes) -> bytes | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name), None)


class Sink(Protocol):
    """Takes a response's body as it arrives."""

    def feed(self, data: bytes) -> None:
        """One or several pieces of body."""


class NodeConnection(asyncio.Protocol):
    """One connection: one exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(exc)

    def peer(self) -> str:
        """The address at the other end."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(name[0]) if isinstance(name, tuple) and name else ""

    def is_usable(self, now: float) -> bool:
        """Whether a request may be written into it."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and now - self.idle_since < IDLE_S

    def send(self, request: bytes, exchange: "Exchange") -> None:
        """Write a request; what comes back goes to the exchange."""
        if self._transport is None:
            raise NodeBroke("the connection closed before the request was sent")
        self._exchange = exchange
        self._transport.write(request)

    def abort(self) -> None:
        """Drop the connection at once: the engine notices and stops computing."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def set_reading(self, *, on: bool) -> None:
        """Stop or go on reading, as the client can take it."""
        if self._transport is None:
            return
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Nobody asked: a late answer to an aborted request, or a server that talks out of turn.
            self.abort()
            return
        exchange.got_bytes = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.abort()
            exchange.lost(NodeBroke(f"the node sent no valid HTTP: {type(error).__name__}"))
            return
        if self._pieces:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            exchange.fed(body)
        if self._exchange is None:
            exchange.completed(self)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._headers = []
        self._head_size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > _MAX_HEAD:
            raise NodeBroke("the node's response headers are too large")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        is_interim = self._parser.get_status_code() // 100 == 1
        if self._exchange is not None and not is_interim:
            self._exchange.headed(Head(self._parser.get_status_code(), tuple(self._headers)))

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() // 100 == 1:
            return
        self._exchange = None
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()


class Exchange:
    """One request on one connection, from sent to complete.

    `head` and `done` are futures; between them a sink takes the body. Deadlines are watched by one timer
    that is moved on lazily, so a piece of body costs a timestamp.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patience: Patience,
        on_free: Callable[[NodeConnection], None],
    ) -> None:
        self._loop = loop
        self._patience = patience
        self._on_free = on_free
        self._connection: NodeConnection | None = None
        self._sink: Sink | None = None
        self._early: list[bytes] = []
        self._has_body = False
        self._is_paused = False
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._last_at = loop.time()
        self.head: asyncio.Future[Head] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.got_bytes = False
        """Whether anything came back; if not, on a reused connection, the request may be sent again."""
        self.is_reused = False
        """Whether the connection has carried a request before this one."""

    def start(self, connection: NodeConnection, request: bytes) -> None:
        """Send the request on this connection."""
        self._connection = connection
        self._sent_at = self._last_at
        self._check_in(self._patience.first_byte_s)
        connection.send(request, self)

    def pump(self, sink: Sink) -> None:
        """Hand the body to the sink, what came already included."""
        self._sink = sink
        for data in self._early:
            sink.feed(data)
        self._early.clear()

    def still_waits(self) -> None:
        """What came so far is no part of the answer: the deadline of its first byte stands as it was."""
        self._has_body = False
        self._last_at = self._sent_at
        self._check_in(max(0.0, self._sent_at + self._patience.first_byte_s - self._loop.time()))

    def abort(self) -> None:
        """Stop: the connection is dropped and with it the work on the node."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._end()

    def break_off(self, reason: str) -> None:
        """Stop, and fail for whoever waits for it."""
        self.is_reused = False  # nor is it to be sent again here
        self._fail(NodeBroke(reason))

    def set_reading(self, *, on: bool) -> None:
        """Stop or go on reading from the node, as the client can take it."""
        self._is_paused = not on
        self._last_at = self._loop.time()
        if self._connection is not None:
            self._connection.set_reading(on=on)

    # what the connection reports

    def headed(self, head: Head) -> None:
        if not self.head.done():
            self.head.set_result(head)

    def fed(self, data: bytes) -> None:
        self._last_at = self._loop.time()
        if not self._has_body:
            self._has_body = True
            self._check_in(self._patience.idle_s)
        if self._sink is None:
            self._early.append(data)
            return
        try:
            self._sink.feed(data)
        except Exception as error:  # noqa: BLE001 - a callback has nobody to raise to; `done` raises it
            self._fail(error)

    def completed(self, connection: NodeConnection) -> None:
        self._connection = None
        self._end()
        if self._is_paused:
            # The last piece was more than the client could take; the next request is another client's.
            connection.set_reading(on=True)
        if not self.done.done():
            self.done.set_result(None)
        self._on_free(connection)

    def lost(self, error: Exception | None) -> None:
        self._connection = None
        if not isinstance(error, NodeBroke):
            error = NodeBroke("the node closed the connection" + (f": {error}" if error else ""))
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.abort()
        for future in (self.head, self.done):
            if not future.done():
                future.set_exception(error)
                # Whoever awaits only one of the two has seen it; the other must not complain.
                future.exception()

    def _check(self) -> None:
        limit = self._patience.idle_s if self._has_body else self._patience.first_byte_s
        left = self._last_at + limit - self._loop.time()
        if left > 0.001:
            self._check_in(left)
        elif self._is_paused:
            self._fail(ClientStalled(f"the client read nothing for {limit:g} s"))
        else:
            self._fail(NodeSilent(f"the node sent nothing for {limit:g} s"))

    def _check_in(self, seconds: float) -> None:
        self._end()
        self._timer = self._loop.call_later(seconds, self._check)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class NodePool:
    """The connections to one node.

    `headers` are lines that every request to it has; `tls` says whom to trust, by default the system's.
    """

    def __init__(
        self,
        url: str,
        patience: Patience,
        *,
        limit: int = 512,
        headers: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"a node's URL must be http(s)://host[:port][/path], got {url!r}")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._patience = patience
        self._limit = limit
        self._idle: deque[NodeConnection] = deque()
        self._under_way: WeakSet[Exchange] = WeakSet()
        self.headers = headers
        self.base_path = parts.path.rstrip("/")
        self.host_header = parts.netloc.rpartition("@")[2].encode()

    async def send(self, request: bytes) -> Exchange:
        """Send a request on a free connection, or a new one.

        Raises `NodeRefused` if none can be made. A pooled connection that broke before a byte came back
        is not the node's failure: then once more, on a fresh one (see `resend`).
        """
        loop = asyncio.get_running_loop()
        exchange = self._exchange(loop)
        pooled = self._pooled(loop)
        exchange.is_reused = pooled is not None
        exchange.start(pooled or await self._connect(loop), request)
        return exchange

    async def resend(self, request: bytes) -> Exchange:
        """Send a request on a new connection."""
        loop = asyncio.get_running_loop()
        exchange = self._exchange(loop)
        exchange.start(await self._connect(loop), request)
        return exchange

    def close(self) -> None:
        """Drop what is idle."""
        while self._idle:
            self._idle.pop().abort()

    def break_off(self, reason: str) -> None:
        """End what is under way, as if the node had died, and drop the rest."""
        for exchange in tuple(self._under_way):
            exchange.break_off(reason)
        self.close()

    def _exchange(self, loop: asyncio.AbstractEventLoop) -> Exchange:
        exchange = Exchange(loop, self._patience, self._give_back)
        self._under_way.add(exchange)
        return exchange

    def _pooled(self, loop: asyncio.AbstractEventLoop) -> NodeConnection | None:
        now = loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(now):
                return connection
            connection.abort()
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> NodeConnection:
        try:
            async with asyncio.timeout(self._patience.connect_s):
                _, connection = await loop.create_connection(
                    lambda: NodeConnection(loop),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError as error:
            raise NodeRefused(f"no connection within {self._patience.connect_s:g} s") from error
        except OSError as error:
            raise NodeRefused(f"no connection: {error.strerror or type(error).__name__}") from error
        if is_link_local(connection.peer()):  # whatever its name was
            connection.abort()
            raise NodeRefused(LINK_LOCAL)
        connection.idle_since = loop.time()
        return connection

    def _give_back(self, connection: NodeConnection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        if len(self._idle) < self._limit and connection.is_usable(connection.idle_since):
            self._idle.append(connection)
        else:
            connection.abort()
