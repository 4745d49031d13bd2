"""The gateway's protocol in a thread of this process, over a use case of the test's own: for limits that a
gateway started as a user would keeps at tens of seconds.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from gateway.api.chat_protocol import AnswerCall, chat_protocol
from gateway.chat import Call
from gateway.ports import Reply

_UP_WITHIN_S = 10.0
MAX_BODY = 1_000_000


@dataclass(slots=True)
class ProtocolServer:
    """Where it listens, and what was refused before it came to the use case."""

    port: int = 0
    refused: list[int] = field(default_factory=list)
    state: ServerState = field(default_factory=ServerState)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self.state.connections)


async def hello(call: Call, reply: Reply) -> None:
    """Answer with the body's size."""
    body = b"%d" % len(call.body)
    reply.start(200, ((b"content-type", b"text/plain"),), length=len(body))
    reply.write(body)
    reply.finish()


async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application for every other path."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def running_protocol(
    answer: AnswerCall = hello, *, head_within_s: float = 20.0, keep_alive_s: int = 75
) -> Iterator[ProtocolServer]:
    """Serve on a free port until the block ends."""
    server, up, ended = ProtocolServer(), threading.Event(), threading.Event()
    kind = chat_protocol(
        answer,
        on_refused=server.refused.append,
        clock=time.time,
        max_body=MAX_BODY,
        head_within_s=head_within_s,
    )
    config = uvicorn.Config(
        elsewhere, http=kind, lifespan="off", log_config=None, timeout_keep_alive=keep_alive_s
    )
    thread = threading.Thread(target=lambda: uvloop.run(_serve(server, config, up, ended)))
    thread.start()
    try:
        assert up.wait(_UP_WITHIN_S)
        yield server
    finally:
        ended.set()
        thread.join(_UP_WITHIN_S)


async def _serve(
    server: ProtocolServer, config: uvicorn.Config, up: threading.Event, ended: threading.Event
) -> None:
    config.load()
    loop, kind = asyncio.get_running_loop(), config.http_protocol_class

    def connected() -> asyncio.Protocol:
        return kind(config=config, server_state=server.state, app_state={}, _loop=loop)  # type: ignore[call-arg] # as uvicorn makes one

    listening = await loop.create_server(connected, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    up.set()
    await asyncio.to_thread(ended.wait)
    listening.close()
    for connection in list(server.state.connections):
        connection.transport.abort()  # type: ignore[union-attr] # none of them is a WebSocket
    await asyncio.sleep(0)
