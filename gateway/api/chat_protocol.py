"""The chat path, taken out of uvicorn's own protocol; every other request goes on to FastAPI.

uvicorn lets a subclass of its httptools protocol decide when the headers of a request are complete. For
`POST /v1/chat/completions` a `ChatCycle` takes the place of the ASGI cycle: it collects the body, runs the
use case as the connection's task, and writes to the transport directly. Pipelining, keep-alive, graceful
shutdown and flow control stay uvicorn's, because the cycle has what uvicorn looks at in its own.

Measured against ASGI on the same relay: about half the CPU per streamed reply (docs/adr/0003).
"""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.api.envelope import envelope
from gateway.chat import Call
from gateway.errors import BadRequest, BodyStalled, ClientFault, TooLarge
from gateway.ports import Headers, Pausable, Reply

CHAT_PATH = b"/v1/chat/completions"

AnswerCall = Callable[[Call, Reply], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_LINGER_S = 2.0
_BODY_IDLE_S = 30.0
"""How long a request's body may stand still."""
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})
_JSON: Headers = ((b"content-type", b"application/json"),)

log = structlog.get_logger()


class ChatCycle:
    """One chat request and its reply, in the place of uvicorn's `RequestResponseCycle`."""

    def __init__(self, protocol: "ChatProtocol", headers: list[tuple[bytes, bytes]]) -> None:
        self._protocol = protocol
        self._transport: asyncio.Transport = protocol.transport
        self._headers = headers
        self._task: asyncio.Task[Any] | None = None
        self._source: Pausable | None = None
        self._is_chunked = False
        self._holds_together = False
        self._received_at = protocol.clock()
        self._waits_for_continue = protocol.expect_100_continue
        self.request_id = ""
        # What uvicorn's protocol reads and sets on a cycle.
        self.body = bytearray()
        self.more_body = True
        self.message_event = asyncio.Event()
        self.keep_alive = protocol.parser.get_http_version() != "1.0" and protocol.parser.should_keep_alive()
        self.response_complete = False
        self.is_started = False
        self._is_disconnected = False

    @property
    def disconnected(self) -> bool:
        """Whether the client has left; uvicorn sets it."""
        return self._is_disconnected

    @disconnected.setter
    def disconnected(self, value: bool) -> None:
        if self._is_disconnected or not value:
            return
        self._is_disconnected = True
        if self._task is not None and not self._holds_together:
            self._task.cancel()

    @property
    def is_finished(self) -> bool:
        """Whether the body is complete."""
        return self.response_complete

    async def run_asgi(self, _app: object) -> None:
        """Read the body, answer, and let the next request of the connection begin."""
        self._task = asyncio.current_task()
        self._protocol.running = self
        try:
            headers = dict(self._headers)
            self.request_id = _request_id(headers)
            if self._waits_for_continue:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if await self._read_body():
                body = bytes(self.body)
                self.body = bytearray()
                await self._protocol.answer_call(
                    Call(
                        headers=headers,
                        body=body,
                        request_id=self.request_id,
                        received_at=self._received_at,
                    ),
                    self,
                )
        except asyncio.CancelledError:
            if not self._is_disconnected:
                raise
        finally:
            self._end()

    async def _read_body(self) -> bool:
        limit = self._protocol.max_body
        while self.more_body and len(self.body) <= limit:
            self._protocol.flow.resume_reading()
            if not self.message_event.is_set() and not await self._more_arrives():
                return False
            self.message_event.clear()
            if self._is_disconnected:
                return False
        if len(self.body) <= limit:
            return True
        self._refuse(TooLarge(limit))
        return False

    async def _more_arrives(self) -> bool:
        try:
            async with asyncio.timeout(_BODY_IDLE_S):
                await self.message_event.wait()
        except TimeoutError:
            self._refuse(BodyStalled(_BODY_IDLE_S))
            return False
        return True

    def _refuse(self, error: ClientFault) -> None:
        """The rest of the body is not read: the connection ends with the answer."""
        self.keep_alive = False
        shown = envelope(error)
        body = shown.json()
        self.start(shown.status, (*_JSON, *shown.headers()), length=len(body))
        self.write(body)
        self.finish()

    def _end(self) -> None:
        if not self.response_complete and not self._is_disconnected:
            # Nothing was answered or only half of it: the client must not take it for complete.
            self._transport.close()

    # Reply

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """Send the head."""
        self.is_started = True
        framing: Headers = () if self.keep_alive else ((b"connection", b"close"),)
        if length is not None:
            framing = (*framing, (b"content-length", b"%d" % length))
        elif self.keep_alive:
            self._is_chunked = True
            framing = (*framing, (b"transfer-encoding", b"chunked"))
        self._send(_head(status, (*headers, *framing)))

    def write(self, data: bytes) -> None:
        """Send a piece of body."""
        self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def finish(self) -> None:
        """The body is complete."""
        if self._is_chunked:
            self._send(b"0\r\n\r\n")
        self.response_complete = True
        if self._is_disconnected:
            return
        if not self.keep_alive:
            self._protocol.close_gently(unread=self.more_body)
        self._protocol.on_response_complete()

    def attach(self, source: Pausable | None) -> None:
        """Hold up this source while the client does not keep up."""
        self._source = source
        if source is not None and self._protocol.flow.write_paused:
            source.set_reading(on=False)

    def hold_together(self) -> None:
        """From here on the client's leaving does not cancel."""
        self._holds_together = True

    def pressed(self, *, on: bool) -> None:
        """The client does not keep up, or does again."""
        if self._source is not None:
            self._source.set_reading(on=not on)

    def _send(self, data: bytes) -> None:
        if not self._is_disconnected:
            self._transport.write(data)


class ChatProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a door of its own for chat completions."""

    def __init__(
        self,
        *args: Any,
        answer_call: AnswerCall,
        clock: Callable[[], float],
        max_body: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.answer_call = answer_call
        self.clock = clock
        self.max_body = max_body
        self.running: ChatCycle | None = None
        """The request being answered; with pipelining, uvicorn's `cycle` may be a later one."""
        self._is_lingering = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left, for the request being answered and those behind it."""
        if self.running is not None and not self.running.response_complete:
            self.running.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What comes after the last answer is read only to be thrown away."""
        if self._is_lingering:
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("this is no valid HTTP/1.1 request")

    def _decline(self, rest: bytes) -> None:
        """Pass over an offer of another protocol, as HTTP/1.1 allows: the request is read without it.

        Java's client offers h2c with every request in the clear; httptools leaves its body unread then.
        """
        method, headers = self.parser.get_method(), self.headers
        if method == b"CONNECT":
            self.send_400_response("this is no proxy")
            return
        self.parser = httptools.HttpRequestParser(self)
        lines = [b"%b %b HTTP/1.1" % (method, self.url)]
        lines += [b"%b: %b" % header for header in headers if header[0] not in _OFFER]
        self.data_received(b"\r\n".join((*lines, b"", rest)))

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in the envelope; in the middle of an answer, that is cut off instead."""
        if self.running is None or self.running.response_complete or not self.running.is_started:
            shown = envelope(BadRequest(msg))
            body = shown.json()
            framing = ((b"content-length", b"%d" % len(body)), (b"connection", b"close"))
            self.transport.write(_head(shown.status, (*_JSON, *shown.headers(), *framing)) + body)
        self.transport.close()

    def on_headers_complete(self) -> None:
        """Take chat completions; leave the rest."""
        if self.parser.should_upgrade():
            return
        if self.url.partition(b"?")[0] != CHAT_PATH or self.parser.get_method() != b"POST":
            super().on_headers_complete()
            return
        running = self.cycle
        cycle = ChatCycle(self, self.headers)
        self.cycle = cycle  # type: ignore[assignment] # it has what the protocol uses of a cycle
        if running is None or running.response_complete:
            self._start_asgi_task(cycle, self.app)  # type: ignore[arg-type] # as above
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type] # as above

    def on_message_complete(self) -> None:
        """Of a request that is to be read again, nothing was kept."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        if self.running is not None:
            self.running.pressed(on=True)

    def resume_writing(self) -> None:
        """The client keeps up again."""
        super().resume_writing()
        if self.running is not None:
            self.running.pressed(on=False)

    def close_gently(self, *, unread: bool) -> None:
        """Close after the answer. With a body still coming, closing at once would reset the connection
        and take the answer with it: stop sending, and wait a little for the client to hang up.
        """
        if not unread or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._is_lingering = True
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)


def chat_protocol(
    answer_call: AnswerCall, *, clock: Callable[[], float], max_body: int
) -> type[asyncio.Protocol]:
    """The protocol class for `uvicorn.Config(http=…)`, bound to this use case."""

    class Bound(ChatProtocol):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(
                config,
                server_state,
                app_state,
                _loop,
                answer_call=answer_call,
                clock=clock,
                max_body=max_body,
            )

    return Bound


def _head(status: int, headers: Headers) -> bytes:
    """Status line and headers, with the empty line behind them."""
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        lines += [name, b": ", value, b"\r\n"]
    return b"".join((*lines, b"\r\n"))


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The client's own id where it is one, or a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
