"""Passing one answer from a node to a client, as it arrives.

A stream goes on event by event in the callback in which it came; with a conversation, everything from the
first `finish_reason` on is held until the turn is stored. Nothing of an answer reaches the client before
its first event was looked at, so that a node that fails until then can still be replaced by another one.
"""

import asyncio
from collections.abc import Callable

import msgspec

from gateway.errors import EngineRefused, NodeBroke, NodeBusy, NodeFault
from gateway.nodes import sse
from gateway.nodes.body import MAX_BODY, BodySink
from gateway.nodes.connection import Exchange, Head, NodePool
from gateway.nodes.dialect import EngineError, read_error, read_refusal
from gateway.nodes.model_name import AS_IT_IS, splice_for
from gateway.nodes.request_head import request_head
from gateway.nodes.text_row import TextRow
from gateway.ports import Headers, Reply

_NO_SUCH_PATH = (404, 405, 501)
_MAX_EVENT = 4 * 1024 * 1024
_MAX_LEAD = 64 * 1024
_PING = b": ping\n\n"
_STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class StreamShape(msgspec.Struct, frozen=True):
    """What has to be done to a stream on its way."""

    headers: Headers
    drops_usage: bool
    """The client did not ask for the usage chunk; the gateway did."""
    holds_end: bool
    """Keep everything from the first `finish_reason` on until `StreamSink.let_go`."""
    keeps_events: bool
    """Remember the events, to read the answer from them."""
    model: str = ""
    """What the client asked for, and is told that answers; empty: whatever the node says."""


class Pings:
    """Comments to a client whose answer does not begin, for those between that cut silent connections.

    The first one sends the head: from then on a failure can only be told inside the stream. Another node
    may still be tried, for nothing of an answer is out.
    """

    def __init__(self, reply: Reply, *, every_s: float) -> None:
        self._reply = reply
        self._every_s = every_s
        self._headers: Callable[[], Headers] = tuple
        self._timer: asyncio.TimerHandle | None = None

    def start(self, headers: Callable[[], Headers]) -> None:
        """From now on, with these headers if none are out; once started, this does nothing."""
        if self._timer is None and self._every_s:
            self._headers = headers
            self._wait()

    def stop(self) -> None:
        """The answer begins, or never will."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._ping)

    def _ping(self) -> None:
        if not self._reply.is_started:
            self._reply.start(200, (*_STREAM_HEADERS, *self._headers()))
        self._reply.write(_PING)
        self._wait()


class StreamSink:
    """Takes a node's event stream and passes it on.

    `on_first` is called before the first event goes on, `on_comment` whenever there was no event yet.
    """

    def __init__(
        self,
        reply: Reply,
        shape: StreamShape,
        *,
        on_first: Callable[[], None],
        on_comment: Callable[[], None],
    ) -> None:
        self._reply = reply
        self._shape = shape
        self._on_first = on_first
        self._on_comment = on_comment
        self._rest = b""
        self._lead = b""
        self._held: list[bytes] = []
        self._is_holding = False
        self._kept = 0
        self._row = TextRow()
        self._name = AS_IT_IS
        self._texts: list[bytes] = []
        self._events: list[bytes] = []
        self.has_begun = False
        """Whether something of the answer went to the client."""
        self.last = b""
        """The events with the usage, where they are not kept."""
        self.is_done = False

    @property
    def events(self) -> list[bytes]:
        """The events of the answer so far, where they are kept; the texts of many may stand in one."""
        if self._texts:
            self._events.append(self._row.event_of(self._texts))
            self._texts.clear()
        return self._events

    def feed(self, data: bytes) -> None:
        """Pass on every event that is complete now."""
        text = self._row.text_of(data)
        if text is not None and not self._rest and not self._is_holding:
            if self._shape.keeps_events:
                self._count(data)
                self._texts.append(text)
            self._reply.write(self._name.of(data))
            return
        blob, self._rest = sse.split_complete(self._rest + data if self._rest else data)
        if len(self._rest) > _MAX_EVENT:
            raise NodeBroke("the node sent an event without an end")
        if not self.has_begun:
            blob = self._looked_at(blob)
        if blob:
            self._pass_on(blob)

    def let_go(self) -> None:
        """Send what was held: the turn is stored."""
        for blob in self._held:
            self._reply.write(blob)
        self._held.clear()

    def _looked_at(self, blob: bytes) -> bytes:
        """What goes on of the beginning: nothing until there is an event, and none that is a refusal.

        Engines say with status 200 that they refuse: SGLang when its queue is full, or when a request of
        higher priority took the place. vLLM sends comments while a prompt waits.
        """
        blob = self._lead + blob
        first = next(sse.payloads((blob,)), b"")
        if not first:
            if len(blob) > _MAX_LEAD:
                raise NodeBroke("the node sent comments only")
            self._lead = blob
            self._on_comment()
            return b""
        self._lead = b""
        if error := read_refusal(first):
            raise refusal(error, error.status or 500)
        if first == sse.DONE:
            raise NodeBroke("its answer was empty")
        self._name = splice_for(first, self._shape.model)
        return blob

    def _pass_on(self, blob: bytes) -> None:
        blob, failure = sse.until_error(blob)
        if blob:
            self._show(blob)
        if failure:
            raise NodeFault("it reported an error inside its answer")

    def _show(self, blob: bytes) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._on_first()
            if not self._reply.is_started:
                self._reply.start(200, (*_STREAM_HEADERS, *self._shape.headers))
        if self._shape.keeps_events:
            self._count(blob)
            self.events.append(blob)
        self.is_done = self.is_done or sse.is_done(blob)
        if sse.has_no_choices(blob):
            self.last = blob
            blob = self._reshaped(blob)
            if not blob:
                return
        if self._shape.holds_end and (self._is_holding or sse.finishes(blob)):
            self._is_holding = True
            self._held.append(self._name.of(blob))
        else:
            self._row.learn(blob)
            self._reply.write(self._name.of(blob))

    def _count(self, blob: bytes) -> None:
        self._kept += len(blob)
        if self._kept > MAX_BODY:
            raise NodeBroke("the node's answer is too large")

    def _reshaped(self, blob: bytes) -> bytes:
        """The events with the usage among them, as the client is to see them."""
        if self._shape.drops_usage:
            blob = b"".join(event for event in sse.events(blob) if not sse.has_no_choices(event))
        return blob


async def send(
    pool: NodePool, api_key: str, headers: Headers, body: bytes, *, path: str = "/v1/chat/completions"
) -> tuple[Exchange, Head]:
    """Send a request, a chat completion unless said, and wait for the head.

    Raises a `NodeFault`. A pooled connection that closed before a byte came is replaced once by a fresh
    one: that is the race of keep-alive, not a failure of the node.
    """
    passed = b"".join(b"%b: %b\r\n" % header for header in headers)
    request = b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        request_head("POST", path, pool, api_key),
        passed,
        len(body),
        body,
    )
    exchange = await pool.send(request)
    try:
        try:
            return exchange, await exchange.head
        except NodeBroke:
            if exchange.got_bytes or not exchange.is_reused:
                raise
        exchange = await pool.resend(request)
        return exchange, await exchange.head
    except BaseException:
        exchange.abort()
        raise


async def refuse(exchange: Exchange, head: Head, *, unserved: str = "") -> None:
    """Raise what a status other than 200 means.

    `unserved`: what is said where the engine does not know the path, which is no failure of a node then: not
    every model is for every path.
    """
    if unserved and head.status in _NO_SUCH_PATH:
        raise EngineRefused(unserved, status=404, code=None, param="model")
    sink = BodySink(limit=1024 * 1024)
    exchange.pump(sink)
    await exchange.done
    raise refusal(read_error(sink.value()), head.status, retry_after_ms=_retry_after(head))


_UNLOADED = "LoRA adapter that has never been loaded"
"""SGLang, with a status 400: it was restarted and has not got it back yet."""


def refusal(error: EngineError, status: int, *, retry_after_ms: int = 1000) -> NodeFault | EngineRefused:
    """What an engine's error means: load, the node's failure, or the client's fault."""
    if status in (429, 503):
        return NodeBusy(error.message, retry_after_ms=retry_after_ms)
    if status // 100 != 4 or status in (401, 403, 404, 405) or _UNLOADED in error.message:
        # Ours to get right: the gateway's key, the node's paths and its models. The engine's own words may
        # repeat a prompt, and this text goes into logs.
        return NodeFault(f"it answered {status}")
    return EngineRefused(error.message, status=status, code=error.code, param=error.param)


def _retry_after(head: Head) -> int:
    seconds = head.get(b"retry-after") or b"1"
    return int(seconds) * 1000 if seconds.isdigit() else 1000
