"""HTTP/1.1 on asyncio: one request at a time per connection, answered whole or as a chunked stream.

Written on httptools rather than on a framework because the stub stands upstream of benchmarks: a streamed
token costs one formatted write. A connection owns the task that answers on it; when the client leaves, the
task is cancelled at once, and `Connections.close` waits until every task has ended.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, cast

import httptools

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_PIPELINED = 16
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    keep_alive: bool
    chunked_answers: bool


Handler = Callable[[Request, "Connection"], Awaitable[None]]


class Connections:
    """The open connections of one server and the tasks that answer on them."""

    def __init__(self, handler: Handler, *, keep_alive: float) -> None:
        self.handler = handler
        self.keep_alive = keep_alive
        self.open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self) -> "Connection":
        return Connection(self)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def drop_idle(self) -> None:
        """Close the connections on which nothing is being answered."""
        for connection in list(self.open):
            connection.close_if_idle()

    async def close(self) -> None:
        """Drop every connection and wait until its task has ended."""
        for connection in list(self.open):
            connection.cut()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class Connection(asyncio.Protocol):
    """One client connection: parses requests in order, and writes one answer at a time."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._pending: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._answering: Request | None = None
        self._started = False
        self._ended = False
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._connections.open.add(self)
        self._await_next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever the reason, the client is gone
        self._connections.open.discard(self)
        self._transport = None
        self._pending.clear()
        self._writable.set()
        if self._idle is not None:
            self._idle.cancel()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # the request itself has been taken; no protocol but HTTP/1.1 is spoken here
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST)

    # What httptools calls while it parses.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._task is None:
            self._put(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes > MAX_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._body.append(part)

    def on_message_complete(self) -> None:
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=self._url.decode("latin-1").partition("?")[0],
            headers=self._headers,
            body=b"".join(self._body),
            keep_alive=self._parser.should_keep_alive() and not self._parser.should_upgrade(),
            chunked_answers=self._parser.get_http_version() == "1.1",
        )
        if len(self._pending) >= _MAX_PIPELINED:
            self.cut()
        elif self._transport is not None:
            self._pending.append(request)
            if self._task is None:
                self._answer_next()

    # What a handler calls.

    def send(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        """Write one whole answer."""
        head = self._head(status, content_type=content_type, headers=headers, length=len(body))
        self._put(head + body)
        self._ended = True

    def start(
        self,
        status: int,
        *,
        content_type: str,
        headers: Mapping[str, str] = _NO_HEADERS,
        length: int | None = None,
    ) -> None:
        """Write status line and headers; without a `length` a stream of unknown length follows."""
        self._put(self._head(status, content_type=content_type, headers=headers, length=length))

    def _head(
        self, status: int, *, content_type: str, headers: Mapping[str, str], length: int | None
    ) -> bytes:
        request = self._answering
        assert request is not None, "nothing is being answered on this connection"
        self._started = True
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", f"content-type: {content_type}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if length is not None:
            lines.append(f"content-length: {length}")
        elif request.chunked_answers:
            lines.append("transfer-encoding: chunked")
        if not request.keep_alive or (length is None and not request.chunked_answers):
            lines.append("connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def write(self, data: bytes) -> None:
        """Write one part of a stream, or of an answer whose length has been announced."""
        self._put(data)

    def write_chunk(self, data: bytes) -> None:
        """Write one part of a stream."""
        assert self._answering is not None
        if self._answering.chunked_answers:
            self._put(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._put(data)

    def end_chunks(self) -> None:
        assert self._answering is not None
        if self._answering.chunked_answers:
            self._put(b"0\r\n\r\n")
        self._ended = True

    async def drain(self) -> None:
        """Wait while the client reads too slowly."""
        if not self._writable.is_set():
            await self._writable.wait()

    def cut(self) -> None:
        """Drop the connection as a dying process would: no end of the answer, a reset if data is unread."""
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self) -> None:
        if self._task is None and self._transport is not None:
            self._transport.close()

    # One request after the other.

    def _answer_next(self) -> None:
        self._task = self._connections.spawn(self._answer(self._pending.popleft()))

    async def _answer(self, request: Request) -> None:
        self._answering = request
        self._started = self._ended = False
        try:
            await self._connections.handler(request, self)
        except Exception:
            log.exception("answering %s %s failed", request.method, request.path)
            if not self._started:
                self.send(500, b'{"error":"the stub node failed; see its log"}')
        finally:
            self._answering = None
            self._task = None
        self._finish(request)

    def _finish(self, request: Request) -> None:
        if self._transport is None:
            return
        if not self._ended:
            self.cut()
        elif not request.keep_alive or not request.chunked_answers:
            self._transport.close()
        elif self._pending:
            self._answer_next()
        else:
            self._await_next()

    def _await_next(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._connections.keep_alive, self.close_if_idle)

    def _refuse(self, status: HTTPStatus) -> None:
        if self._task is None:
            line = f"HTTP/1.1 {status} {status.phrase}"
            self._put(f"{line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            if self._transport is not None:
                self._transport.close()
        else:
            self.cut()

    def _put(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
