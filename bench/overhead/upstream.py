"""The instant upstream: a node that answers at once from pre-rendered bytes, so that only the gateway costs.

Run as `python -m bench.overhead.upstream --model NAME`; its first line is `{"url": …}`. It ends when its
standard input closes, so that it never outlives the benchmark that started it.
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass
from typing import cast

import httptools
import msgspec
import uvloop

from bench.overhead import replies
from bench.overhead.replies import CHUNK_INTERVAL_S, CONTENT_CHUNKS, Replies

MAX_BODY_BYTES = 8 * 2**20
_METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="{model}",engine="0"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{model_name="{model}",engine="0"}} 0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{model_name="{model}",engine="0"}} 0.1
"""


@dataclass(slots=True)
class Tally:
    """What this upstream has been asked so far; read by the benchmark at `/stats`."""

    chats: int = 0
    chat_bytes: int = 0
    running: int = 0


class NodeConnection(asyncio.Protocol):
    """One client connection. A request that comes while a stream is being written is refused."""

    def __init__(self, *, model: str, rendered: Replies, tally: Tally) -> None:
        self._model = model
        self._rendered = rendered
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._ending = b""
        self._next_chunk = 0
        self._next_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass, only alike

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it with the reason
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._tally.running -= 1

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse()

    def on_message_begin(self) -> None:
        self._url = b""
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            self._refuse()
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is None:
            return
        path = self._url.split(b"?", 1)[0]
        if self._timer is not None:
            self._refuse()
        elif path == b"/v1/chat/completions":
            self._answer_chat(self._transport, b"".join(self._body))
        else:
            self._transport.write(self._answer_other(path))

    def _answer_chat(self, transport: asyncio.Transport, body: bytes) -> None:
        self._tally.chats += 1
        self._tally.chat_bytes += len(body)
        if not replies.wants_stream(body):
            transport.write(replies.json_answer(self._rendered, len(body)))
            return
        self._tally.running += 1
        self._ending = replies.stream_ending(self._rendered, len(body), with_usage=replies.wants_usage(body))
        self._next_chunk = 0
        self._next_at = self._loop.time() + CHUNK_INTERVAL_S
        transport.write(self._rendered.stream_opening)
        self._timer = self._loop.call_at(self._next_at, self._write_next)

    def _write_next(self) -> None:
        if self._transport is None:
            return
        if self._next_chunk == CONTENT_CHUNKS:
            self._timer = None
            self._tally.running -= 1
            self._transport.write(self._ending)
            return
        self._transport.write(self._rendered.stream_contents[self._next_chunk])
        self._next_chunk += 1
        self._next_at += CHUNK_INTERVAL_S
        self._timer = self._loop.call_at(self._next_at, self._write_next)

    def _answer_other(self, path: bytes) -> bytes:
        match path:
            case b"/health":
                return replies.http_answer(b"200 OK", b"", b"text/plain")
            case b"/v1/models":
                card = {"id": self._model, "object": "model", "created": 1700000000, "owned_by": "vllm"}
                listed = {"object": "list", "data": [card | {"root": self._model, "max_model_len": 131072}]}
                return replies.http_answer(b"200 OK", msgspec.json.encode(listed))
            case b"/metrics":
                text = _METRICS.format(model=self._model, running=self._tally.running)
                return replies.http_answer(b"200 OK", text.encode(), b"text/plain; version=0.0.4")
            case b"/stats":
                return replies.http_answer(b"200 OK", msgspec.json.encode(self._tally))
            case b"/version":
                return replies.http_answer(b"200 OK", b'{"version":"0.32.0"}')
            case _:
                return replies.http_answer(b"404 Not Found", b'{"detail":"Not Found"}')

    def _refuse(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def serve(model: str) -> None:
    """Listen on a free loopback port until standard input closes."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    rendered = replies.render(model)
    tally = Tally()
    server = await loop.create_server(
        lambda: NodeConnection(model=model, rendered=rendered, tally=tally),
        host="127.0.0.1",
        port=0,
        backlog=512,
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(msgspec.json.encode({"url": url}).decode(), flush=True)
    await closed.wait()
    loop.remove_reader(sys.stdin.fileno())
    server.close()


def main() -> None:
    """Read the command line and serve."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", required=True)
    uvloop.run(serve(options.parse_args().model))


if __name__ == "__main__":
    main()
