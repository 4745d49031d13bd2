"""Between the gateway and its nodes: passes every byte on, and keeps the newest prompts.

An engine counts a prompt's tokens, not what they are. What stands behind a user's message (a tail) is new in
that prompt and could not have been cached, so it must not count as if it had been missed.
"""

import asyncio
import contextlib
import json
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httptools

_KEPT = 256
_PIECE = 65_536


class Ear:
    """The newest chat prompts that went by."""

    def __init__(self) -> None:
        self._prompts: deque[list[dict[str, Any]]] = deque(maxlen=_KEPT)

    def note(self, body: bytes) -> None:
        """A request's body."""
        with contextlib.suppress(ValueError):  # other paths have other bodies
            fields = json.loads(body)
            if isinstance(fields, dict) and "messages" in fields:
                self._prompts.append(fields["messages"])

    def behind(self, name: str, text: str) -> str:
        """What stood behind this message in the newest prompt of the character `name` that ends with it."""
        for prompt in reversed(list(self._prompts)):
            said = str(prompt[-1]["content"])
            if said.startswith(text) and name in str(prompt[0]["content"]):
                return said.removeprefix(text)
        raise LookupError(f"no prompt of {name} ends with {text!r}")


class _Bodies:
    """What a parser of one connection's requests calls."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self._body = bytearray()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._ear.note(bytes(self._body))
        self._body.clear()


@contextlib.contextmanager
def overheard(urls: Sequence[str]) -> Iterator[tuple[list[str], Ear]]:
    """For each node a URL that leads to it, and the ear that listens on the way."""
    ear, loop = Ear(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        ways = [asyncio.run_coroutine_threadsafe(_way(url, ear), loop).result(10) for url in urls]
        yield ways, ear
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _way(url: str, ear: Ear) -> str:
    host, port = urlsplit(url).hostname, urlsplit(url).port

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(host, port)
        except ConnectionError:  # the node is away, and so is the way to it
            writer.close()
            return
        parser = httptools.HttpRequestParser(_Bodies(ear))
        ways = [
            asyncio.create_task(_pass(reader, there_writer, parser)),
            asyncio.create_task(_pass(there_reader, writer, None)),
        ]
        try:
            # Whoever hangs up first ends both: a client that leaves must stop its node.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            there_writer.close()
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parser: httptools.HttpRequestParser | None
) -> None:
    with contextlib.suppress(ConnectionError):  # the other side is told by closing
        while piece := await reader.read(_PIECE):
            if parser is not None:
                parser.feed_data(piece)
            writer.write(piece)
            await writer.drain()
