"""HTTP/1.1 by hand over one socket, so that a test decides what goes into which TCP segment."""

import json
import socket
from dataclasses import dataclass
from typing import Any, Self

ANSWER_WITHIN_S = 10.0
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. `body` is decoded; `is_whole` tells whether the server ended it properly."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool = True

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class RawClient:
    """A connection to a server; answers are read one by one, in order."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(ANSWER_WITHIN_S)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send as one piece."""
        self.socket.sendall(data)

    def read_line(self) -> bytes:
        """One line, without its end."""
        return self._until(b"\r\n")

    def read_some(self, needle: bytes) -> bytes:
        """Whatever comes, up to and including `needle`, as it is on the wire."""
        return self._until(needle) + needle

    def answer(self) -> Answer:
        """The next response, 100 Continue left out."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        if status == 100:
            return self.answer()
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, *self._chunks())
        if "content-length" in headers:
            size = int(headers["content-length"])
            body = self._exactly(size)
            return Answer(status, headers, body, len(body) == size)
        return Answer(status, headers, self.rest())

    def answer_after(self, seen: bytes) -> Answer:
        """The response whose beginning has been read already."""
        self._rest = seen + self._rest
        return self.answer()

    def rest(self) -> bytes:
        """Everything until the server hangs up."""
        while self._more():
            pass
        data, self._rest = self._rest, b""
        return data

    def _chunks(self) -> tuple[bytes, bool]:
        pieces: list[bytes] = []
        while True:
            try:
                size = int(self._until(b"\r\n"), 16)
            except ConnectionError:
                return b"".join(pieces), False
            piece = self._exactly(size)
            assert self._exactly(2) == b"\r\n"
            if not size:
                return b"".join(pieces), True
            pieces.append(piece)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            if not self._more():
                raise ConnectionError(f"the server hung up after {self._rest[:200]!r}")
        data, _, self._rest = self._rest.partition(mark)
        return data

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size and self._more():
            pass
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._rest += data
        return bool(data)


def request(
    body: bytes, *, path: str = CHAT, method: str = "POST", headers: dict[str, str] | None = None
) -> bytes:
    """A request with its content-length."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chat(text: str = "hello", **fields: Any) -> bytes:
    """The body of a chat completion; fields go on top."""
    return json.dumps({"model": "stub", "messages": [{"role": "user", "content": text}], **fields}).encode()
