"""One chat request and its reply, in the place of uvicorn's `RequestResponseCycle`.

It collects the body, runs the use case as the connection's task, and writes to the transport directly. It
has what uvicorn's protocol looks at in its own cycle, so pipelining, keep-alive and graceful shutdown stay
uvicorn's.
"""

import asyncio
import random
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.api.envelope import envelope
from gateway.chat import Call
from gateway.errors import BadRequest, BodyStalled, Draining, GatewayError, TooLarge
from gateway.ports import Headers, Pausable

if TYPE_CHECKING:
    from gateway.api.chat_protocol import ChatProtocol

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_COMMENT = b":\n\n"
"""A server-sent event that says nothing."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_CLIENT_LEFT = 499
"""As nginx counts it; nobody is sent this."""
_BODY_IDLE_S = 30.0
"""How long a request's body may stand still."""

log = structlog.get_logger()


class ChatCycle:
    """One chat request and its reply."""

    def __init__(
        self,
        protocol: "ChatProtocol",
        headers: list[tuple[bytes, bytes]],
        *,
        path: str,
        regenerates: str | None = None,
    ) -> None:
        self._protocol = protocol
        self._path = path
        self._regenerates = regenerates
        self._transport: asyncio.Transport = protocol.transport
        self._headers = headers
        self._announced = _announced(headers)
        self._task: asyncio.Task[Any] | None = None
        self._source: Pausable | None = None
        self._is_chunked = False
        self._is_stream = False
        self._is_quiet = True
        self._is_cut_off = False
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
        if self._is_disconnected:
            return
        self._task = asyncio.current_task()
        self._protocol.running = self
        try:
            headers = dict(self._headers)
            self.request_id = request_id(headers)
            if self._waits_for_continue:
                self._transport.write(_CONTINUE)
            if await self._read_body():
                body = bytes(self.body)
                self.body = bytearray()
                await self._protocol.answer_call(
                    Call(
                        headers=headers,
                        body=body,
                        request_id=self.request_id,
                        received_at=self._received_at,
                        path=self._path,
                        regenerates=self._regenerates,
                    ),
                    self,
                )
        except asyncio.CancelledError:
            if not self._is_disconnected:
                self._break_off()
                raise
            self._protocol.on_refused(_CLIENT_LEFT)
        finally:
            self._end()

    def cut_off(self) -> None:
        """The rest of the body will not come, but the client may read."""
        self._is_cut_off = True
        self.more_body = False
        self.message_event.set()

    def probe(self) -> None:
        """Write what a client passes over, so that a connection that nobody reads any more breaks.

        Before the head that is an interim response; in a stream that has nothing to say at the moment, a
        comment.
        """
        if not self.is_started:
            self._transport.write(_CONTINUE)
        elif self._is_stream and self._is_quiet:
            self.write(_COMMENT)
        self._is_quiet = True

    async def _read_body(self) -> bool:
        limit = self._protocol.max_body
        if self._announced > limit:
            self._refuse(TooLarge(limit))
            return False
        while self.more_body and len(self.body) <= limit:
            self._protocol.flow.resume_reading()
            if not self.message_event.is_set() and not await self._more_arrives():
                return False
            self.message_event.clear()
            if self._is_disconnected:
                return False
        if self._is_cut_off:
            self._refuse(BadRequest("the body ended before it was complete"))
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

    def _refuse(self, error: GatewayError) -> None:
        """Whatever is left of the body is not read: the connection ends with the answer."""
        self.keep_alive = False
        shown = envelope(error)
        self._protocol.on_refused(shown.status)
        body = shown.json()
        self.start(shown.status, shown.response_headers(self.request_id), length=len(body))
        self.write(body)
        self.finish()

    def _break_off(self) -> None:
        """The process ends, and the drain is over. A stream gets an error and no end: see `_end`."""
        if self.response_complete:
            return
        error = Draining()
        shown = envelope(error)
        log.warning("not answered", request_id=self.request_id, status=shown.status, code=shown.code)
        if not self.is_started:
            self._refuse(error)
        elif self._is_stream:
            self._protocol.on_refused(shown.status)
            self.write(shown.event())

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
        else:
            self._is_stream = True
            if self.keep_alive:
                self._is_chunked = True
                framing = (*framing, (b"transfer-encoding", b"chunked"))
        self._send(response_head(status, (*headers, *framing)))

    def write(self, data: bytes) -> None:
        """Send a piece of body."""
        self._is_quiet = False
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


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Status line and headers, with the empty line behind them."""
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        lines += [name, b": ", value, b"\r\n"]
    return b"".join((*lines, b"\r\n"))


def request_id(headers: dict[bytes, bytes]) -> str:
    """The client's own id where it is one, or a new one."""
    given = headers.get(b"x-request-id", b"")
    if _REQUEST_ID.fullmatch(given):
        return given.decode()
    # A name and no secret: uuid4 would ask the kernel each time.
    return f"req_{random.getrandbits(128):032x}"


def _announced(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """How long the body is said to be; 0 where nothing is said. The parser has refused what is no number."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
