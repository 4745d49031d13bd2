"""The floor: a relay that decides nothing, as little Python as can stand between a client and a node.

It parses both sides with httptools, gives every client connection a connection of its own to one of the
nodes in turn, and passes the answer's bytes on. No pool, no flow control, no errors worth the name, no
history: what a gateway costs above it is the price of its work.
Run as `python -m bench.overhead.floor --port PORT --node URL --node URL`.
"""

import argparse
import asyncio
from collections.abc import Callable
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop


class NodeSide(asyncio.Protocol):
    """The connection to a node that belongs to one client connection."""

    def __init__(self, client: asyncio.Transport, ask: Callable[[asyncio.Transport], None]) -> None:
        self._client = client
        self._ask = ask
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._ask(cast("asyncio.Transport", transport))  # uvloop's is not a subclass, only alike

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes the reason
        self._client.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        self._client.write(data)


class ClientSide(asyncio.Protocol):
    """One client connection: each request goes on as soon as it is whole."""

    def __init__(self, node_port: int) -> None:
        self._node_port = node_port
        self._parser = httptools.HttpRequestParser(self)
        self._client: asyncio.Transport | None = None
        self._node: asyncio.Transport | None = None
        self._connecting: asyncio.Task[object] | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        connected = loop.create_connection(
            lambda: NodeSide(cast("asyncio.Transport", transport), self._node_ready),
            "127.0.0.1",
            self._node_port,
        )
        self._connecting = loop.create_task(connected)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes the reason
        if self._connecting is not None:
            self._connecting.cancel()
        if self._node is not None:
            self._node.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        request = (
            b"%s %s HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (
                self._parser.get_method(),
                self._url,
                len(body),
                body,
            )
        )
        if self._node is None:
            self._waiting += request
        else:
            self._node.write(request)

    def _node_ready(self, node: asyncio.Transport) -> None:
        self._node = node
        if self._waiting:
            node.write(self._waiting)


async def serve(port: int, node_ports: list[int]) -> None:
    """Relay until the process is ended."""
    turn = cycle(node_ports)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ClientSide(next(turn)), "127.0.0.1", port, backlog=512)
    await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--node", action="append", required=True)
    asked = options.parse_args()
    uvloop.run(serve(asked.port, [urlsplit(url).port or 80 for url in asked.node]))


if __name__ == "__main__":
    main()
