"""The paths of completions, taken out of uvicorn's own protocol; every other request goes on to FastAPI.

uvicorn lets a subclass of its httptools protocol decide when the headers of a request are complete. For
`POST /v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, and a conversation's `regenerate`, a
`ChatCycle` takes the place of the ASGI cycle. Pipelining, keep-alive, graceful shutdown and flow control stay
uvicorn's. For every path alike, the head is bounded in size and in time, and a client that only shuts its
sending side still gets its answers.

Measured against ASGI on the same relay: about half the CPU per streamed reply (docs/adr/0003).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.api.chat_cycle import ChatCycle, request_id, response_head
from gateway.api.envelope import envelope
from gateway.api.head_watch import HEAD_WITHIN_S, HeadWatch
from gateway.chat import Call
from gateway.errors import BadRequest, ClientFault, HeadStalled, HeadTooLarge
from gateway.ports import Reply
from gateway.request import CHAT, EMBEDDINGS, TEXT

PATHS = {path.encode(): path for path in (CHAT, TEXT, EMBEDDINGS)}
ANEW_PATH = b"/v1/conversations/{id}/regenerate"
"""A chat completion as well: the last message of a conversation is answered anew."""

AnswerCall = Callable[[Call, Reply], Awaitable[None]]

_LINGER_S = 2.0
_FIRST_PROBE_S = 0.1
_PROBE_EVERY_S = 0.3
"""Two probes after a client's leaving tell of it: the first provokes a reset, the second meets it."""
_NO_HTTP = "this is no valid HTTP/1.1 request"
_ANEW = re.compile(re.escape(ANEW_PATH).replace(re.escape(b"{id}"), b"([^/]+)"))
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})


class ChatProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a door of its own for chat completions."""

    def __init__(
        self,
        *args: Any,
        answer_call: AnswerCall,
        on_refused: Callable[[int], None],
        clock: Callable[[], float],
        max_body: int,
        head_within_s: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.answer_call = answer_call
        self.on_refused = on_refused
        """Told the status of each request that `answer_call` did not come to, or not to the end of."""
        self.clock = clock
        self.max_body = max_body
        self.running: ChatCycle | None = None
        """The request being answered; with pipelining, uvicorn's `cycle` may be a later one."""
        self._watch = HeadWatch(self.loop, self._head_is_late, within_s=head_within_s)
        self._probing: asyncio.TimerHandle | None = None
        self._is_lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn
        """A connection without a request is as idle as one between two."""
        super().connection_made(transport)
        self._wait_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left, for the request being answered and those behind it."""
        if self.running is not None and not self.running.response_complete:
            self.running.disconnected = True
        self._watch.stop()
        if self._probing is not None:
            self._probing.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What comes after the last answer is read only to be thrown away."""
        if self._is_lingering:
            return
        self._unset_keepalive_if_required()
        watch = self._watch
        watch.piece(len(data))
        try:
            self.parser.feed_data(data)
            watch.settle()
            if not watch.is_within and not self._is_busy():
                self._wait_idle()
        except HeadTooLarge as too_large:
            self._refuse(too_large)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__  # what a callback raised
            self._refuse(cause if isinstance(cause, HeadTooLarge) else BadRequest(_NO_HTTP))

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_idle(self) -> None:
        """Until the next request. Of uvicorn's own accord that is bounded only behind an answer."""
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio's own may say so
        """The client sends nothing more: it has left, or has shut its sending side and waits for its answers.

        On the wire both look the same, and what shows them apart is writing: a socket that was closed
        answers with a reset, which the next write meets. So while there is an answer to be given, an
        interim response (before its head) or a comment (in a silent stream) is written again and again;
        clients pass over both. One that has left is noticed within half a second, whenever it leaves,
        also while its prompt is prefilled, and its node is stopped then. HTTP/1.0 knows no interim
        responses: there, the end of input counts as leaving.
        """
        cycle = self.cycle
        if self._is_lingering or self.transport.is_closing():
            return False
        if cycle is None or not self._is_busy():
            if self._watch.is_within:
                self._refuse(BadRequest("the request ended within its headers"))
            return False
        if self.parser.get_http_version() == "1.0":
            return False
        if cycle.more_body:
            if not isinstance(cycle, ChatCycle):
                return False
            cycle.cut_off()
        cycle.keep_alive = False
        if self._probing is None:
            self._probe(_FIRST_PROBE_S)
        return True

    def _probe(self, next_s: float) -> None:
        running = self.running
        if running is not None and not running.response_complete and not self.flow.write_paused:
            running.probe()
        self._probing = self.loop.call_later(next_s, self._probe, _PROBE_EVERY_S)

    def _decline(self, rest: bytes) -> None:
        """Pass over an offer of another protocol, as HTTP/1.1 allows: the request is read without it.

        Java's client offers h2c with every request in the clear; httptools leaves its body unread then.
        """
        method, headers = self.parser.get_method(), self.headers
        if method == b"CONNECT":
            self._refuse(BadRequest("this is no proxy"))
            return
        self.parser = httptools.HttpRequestParser(self)
        lines = [b"%b %b HTTP/1.1" % (method, self.url)]
        lines += [b"%b: %b" % header for header in headers if header[0] not in _OFFER]
        self.data_received(b"\r\n".join((*lines, b"", rest)))

    def _head_is_late(self) -> None:
        """The next request's head may rest while an answer is being given."""
        if self._is_busy():
            self._watch.start()
        else:
            self._refuse(HeadStalled(self._watch.within_s))

    def _refuse(self, error: ClientFault) -> None:
        """Say what is wrong and end the connection; an answer that has begun is cut off instead."""
        shown = envelope(error)
        self.on_refused(shown.status)
        self._watch.stop()
        self.pipeline.clear()
        for cycle in (self.running, self.cycle):
            if cycle is None or cycle.response_complete:
                continue
            if cycle.is_started if isinstance(cycle, ChatCycle) else cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        body = shown.json()
        framing = ((b"content-length", b"%d" % len(body)), (b"connection", b"close"))
        headers = (*shown.response_headers(request_id({})), *framing)
        self.transport.write(response_head(shown.status, headers) + body)
        self.close_gently(unread=True)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._watch.begin()

    def on_headers_complete(self) -> None:
        """Take completions; leave the rest."""
        self._watch.complete(self.url, self.headers)
        if self.parser.should_upgrade():
            return
        path = self.url.partition(b"?")[0]
        asked = PATHS.get(path)
        anew = None if asked else _ANEW.fullmatch(path)
        if (asked is None and anew is None) or self.parser.get_method() != b"POST":
            super().on_headers_complete()
            return
        running = self.cycle
        regenerates = _unquoted(anew[1]) if anew else None
        cycle = ChatCycle(self, self.headers, path=asked or CHAT, regenerates=regenerates)
        self.cycle = cycle  # type: ignore[assignment] # it has what the protocol uses of a cycle
        if running is None or running.response_complete:
            self._start_asgi_task(cycle, self.app)  # type: ignore[arg-type] # as above
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type] # as above

    def on_body(self, body: bytes) -> None:
        """A piece of a request's body."""
        self._watch.body()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Of a request that is to be read again, nothing was kept."""
        if not self.parser.should_upgrade():
            self._watch.end()
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


def _unquoted(part: bytes) -> str:
    """A part of a path as the routes of the other paths have it."""
    return unquote_to_bytes(part).decode("utf-8", "replace")


def chat_protocol(
    answer_call: AnswerCall,
    *,
    on_refused: Callable[[int], None],
    clock: Callable[[], float],
    max_body: int,
    head_within_s: float = HEAD_WITHIN_S,
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
                on_refused=on_refused,
                clock=clock,
                max_body=max_body,
                head_within_s=head_within_s,
            )

    return Bound
