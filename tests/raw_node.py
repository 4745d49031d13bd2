"""A node written by hand: it answers probes, and for each chat completion does what a test says."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

ACCEPTED_WITHIN_S = 20.0
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

Script = Callable[["Line"], None]


def whole(body: bytes, *, status: str = "200 OK", headers: bytes = b"") -> bytes:
    """A response with its length."""
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status.encode(), headers, len(body), body)


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body; empty: its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**fields: Any) -> bytes:
    """A server-sent event."""
    return b"data: %b\n\n" % json.dumps(fields, separators=(",", ":")).encode()


def delta(text: str | None = None, finish: str | None = None) -> bytes:
    """A chunk of a chat completion as an event."""
    content = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": content, "finish_reason": finish}
    return event(id="c1", object="chat.completion.chunk", created=7, model="stub", choices=[choice])


USAGE = event(
    id="c1", object="chat.completion.chunk", created=7, model="stub", choices=[],
    usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
)  # fmt: skip
DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Line:
    """A connection from the gateway, and the chat completion that came on it."""

    socket: socket.socket
    request: bytes
    number: int
    """How many chat completions the node has seen before this one."""

    def send(self, *pieces: bytes) -> None:
        """Send each piece as a segment of its own, as far as TCP lets one."""
        for piece in pieces:
            self.socket.sendall(piece)

    def hang_up(self) -> None:
        """Close the connection, as a node that dies or has had enough of an idle one."""
        raise ConnectionAbortedError


@dataclass(slots=True)
class RawNode:
    """The node; `script` answers each chat completion, and may be changed at any time."""

    url: str
    script: Script
    seen: list[bytes] = field(default_factory=list)
    """The chat completions' bodies."""
    connections: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set once the gateway has closed a connection on which a chat completion had come."""
    last: Line | None = None
    """The latest chat completion, to go on with its answer."""

    @property
    def last_request(self) -> bytes:
        """The latest chat completion, head and body."""
        assert self.last is not None
        return self.last.request


_MODELS = json.dumps({"object": "list", "data": [{"id": "stub", "object": "model"}]}).encode()


@contextlib.contextmanager
def running_raw_node(script: Script) -> Iterator[RawNode]:
    """A node in threads of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = RawNode(f"http://127.0.0.1:{listener.getsockname()[1]}", script)
        open_sockets: set[socket.socket] = set()
        threads: list[threading.Thread] = []
        acceptor = threading.Thread(target=_accept, args=(listener, node, open_sockets, threads), daemon=True)
        acceptor.start()
        yield node
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(ACCEPTED_WITHIN_S)
        for one in list(open_sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(ACCEPTED_WITHIN_S)


def _accept(
    listener: socket.socket, node: RawNode, open_sockets: set[socket.socket], threads: list[threading.Thread]
) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        open_sockets.add(connection)
        node.connections += 1
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=_serve, args=(connection, node, open_sockets), daemon=True)
        threads.append(thread)
        thread.start()


def _serve(connection: socket.socket, node: RawNode, open_sockets: set[socket.socket]) -> None:
    chatted = False
    with connection, contextlib.suppress(OSError):
        while request := _request(connection):
            head, _, body = request.partition(b"\r\n\r\n")
            if head.startswith(b"POST /v1/chat/completions"):
                chatted = True
                line = Line(connection, request, len(node.seen))
                node.seen.append(body)
                node.last = line
                node.script(line)
            elif b"/v1/models" in head.split(b"\r\n")[0]:
                connection.sendall(whole(_MODELS))
            else:
                connection.sendall(whole(b""))
    open_sockets.discard(connection)
    if chatted:
        node.hung_up.set()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line]
    while len(body) < sum(lengths):
        piece = connection.recv(65536)
        if not piece:
            return b""
        body += piece
    return head + b"\r\n\r\n" + body
