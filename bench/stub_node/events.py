"""Server-sent events towards one client, and the faults that strike after some of them."""

import asyncio

import msgspec

from bench.stub_node.dialects.shapes import Json
from bench.stub_node.faults import MID_STREAM, Fault
from bench.stub_node.http1 import Connection

DONE = b"data: [DONE]\n\n"
CONTENT_TYPE = "text/event-stream; charset=utf-8"

_encode = msgspec.json.Encoder().encode
_MARK = "\x1f"
_ENCODED_MARK = b"\\u001f"


class ConnectionCut(Exception):
    """The node dropped the connection because a fault told it to."""


class Events:
    """One event stream; events are counted from the first data line on."""

    def __init__(self, connection: Connection, fault: Fault | None) -> None:
        self._connection = connection
        self._fault = fault if fault is not None and fault.kind in MID_STREAM else None
        self._sent = 0
        self._open = False

    def open(self) -> None:
        """Write the headers, once."""
        if not self._open:
            self._open = True
            self._connection.start(200, content_type=CONTENT_TYPE, headers={"cache-control": "no-cache"})

    async def send(self, event: Json) -> None:
        await self.send_bytes(b"data: %b\n\n" % _encode(event))

    async def send_bytes(self, data: bytes) -> None:
        """Write one event. Raises ConnectionCut; never returns when a fault stalls the stream."""
        if self._fault is not None and self._sent == self._fault.chunks:
            await self._strike(self._fault)
        self._sent += 1
        self._connection.write_chunk(data)
        await self._connection.drain()

    async def close(self) -> None:
        await self.send_bytes(DONE)
        self._connection.end_chunks()

    async def _strike(self, fault: Fault) -> None:
        if fault.kind == "cut_after_chunks":
            await _flush()
            self._connection.cut()
            raise ConnectionCut
        if fault.kind == "stall_after_chunks":
            await asyncio.Event().wait()
        self._connection.write_chunk(b'data: {"choices":[{"delta":{"content":"brok\n\n')


async def send_whole(connection: Connection, body: bytes, fault: Fault | None) -> None:
    """Write one JSON answer, spoiled in the middle when a mid-stream fault applies to it."""
    if fault is None or fault.kind not in MID_STREAM:
        connection.send(200, body)
        return
    half = body[: len(body) // 2]
    if fault.kind == "broken_chunk_after":
        connection.send(200, half)
        return
    connection.start(200, content_type="application/json", length=len(body))
    connection.write(half)
    if fault.kind == "stall_after_chunks":
        await asyncio.Event().wait()
    await _flush()
    connection.cut()
    raise ConnectionCut


async def _flush() -> None:
    """Let the transport hand to the kernel what it has gathered; an abort would throw it away."""
    await asyncio.sleep(0.01)


def around_mark(chunk: Json) -> tuple[bytes, bytes]:
    """The bytes of an event before and after the place of `mark()` in it, quotes included."""
    before, _, after = _encode(chunk).partition(b'"%b"' % _ENCODED_MARK)
    return b"data: " + before, after + b"\n\n"


def mark() -> str:
    """Stands in a chunk for the text that changes from token to token."""
    return _MARK


def quoted(text: str) -> bytes:
    return _encode(text)
