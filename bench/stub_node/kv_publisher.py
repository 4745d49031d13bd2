"""A publisher of KV events that plays vLLM's and SGLang's, with their forms, their replays and their losses.

What is sent is plain data in an engine's own form (see `KvForm`), numbered from 0 at each start. Batches can
be swallowed (they count and can be asked for again, as after a full queue), sent twice, or spoiled, and the
publisher can begin anew on the same port, as an engine that was restarted does.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Self

import zmq
import zmq.asyncio

from bench.stub_node.kv_forms import Event, KvForm

END_SEQ = b"\xff" * 8
_KEPT = 10_000


@dataclass(slots=True)
class KvPublisher:
    """One engine's publisher in the running event loop; `async with` starts and ends it."""

    context: zmq.asyncio.Context
    form: KvForm = field(default_factory=KvForm)
    host: str = "127.0.0.1"
    port: int = 0
    replay_port: int = 0
    seq: int = 0
    """The number of the next batch."""
    replays_asked: int = 0
    _kept: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _sockets: list[zmq.asyncio.Socket] = field(default_factory=list)
    _replaying: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> str:
        """Where it publishes."""
        return f"tcp://{self.host}:{self.port}"

    @property
    def replay_endpoint(self) -> str:
        """Where it repeats."""
        return f"tcp://{self.host}:{self.replay_port}"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Listen, on the ports of last time if there was one, and count from 0."""
        publisher, router = self.context.socket(zmq.PUB), self.context.socket(zmq.ROUTER)
        self._sockets = [publisher, router]
        publisher.set_hwm(100_000)
        self.port = _listen(publisher, self.host, self.port)
        self.replay_port = _listen(router, self.host, self.replay_port)
        self.seq = 0
        self._kept.clear()
        self._replaying = asyncio.create_task(self._replay(router))

    async def stop(self) -> None:
        """End as an engine does that is killed: what was not sent is lost."""
        if self._replaying is not None:
            self._replaying.cancel()
            await asyncio.gather(self._replaying, return_exceptions=True)
        for socket in self._sockets:
            socket.close(linger=0)
        self._sockets = []

    async def publish(self, ts: float, *events: Event, copies: int = 1) -> None:
        """Send one batch so many times; 0: it counts and is kept, but nobody gets it."""
        await self.publish_bytes(self.form.encode(ts, events), copies=copies)

    async def publish_bytes(self, payload: bytes, *, copies: int = 1) -> None:
        """Send any payload as the next batch."""
        for _ in range(copies):
            await self._sockets[0].send_multipart([self.form.topic, self.seq.to_bytes(8, "big"), payload])
        self._kept.append((self.seq, payload))
        self.seq += 1

    async def send(self, *frames: bytes) -> None:
        """Send any message at all, outside of the count."""
        await self._sockets[0].send_multipart(frames)

    async def _replay(self, router: zmq.asyncio.Socket) -> None:
        while True:
            frames = await router.recv_multipart()
            if len(frames) != 3:  # engines ignore a request without its empty frame, too
                continue
            self.replays_asked += 1
            client, _, start = frames
            topic = [self.form.topic] if self.form.has_replay_topic else []
            for seq, payload in tuple(self._kept):
                if seq >= int.from_bytes(start, "big"):
                    await router.send_multipart([client, b"", *topic, seq.to_bytes(8, "big"), payload])
            await router.send_multipart([client, b"", *topic, END_SEQ, b""])


def _listen(socket: zmq.asyncio.Socket, host: str, port: int) -> int:
    if port:
        socket.bind(f"tcp://{host}:{port}")
        return port
    taken: int = socket.bind_to_random_port(f"tcp://{host}")
    return taken
