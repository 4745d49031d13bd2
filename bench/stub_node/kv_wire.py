"""From a node's cache to whoever follows it: events are batched for a moment, as by a scheduler step."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import zmq.asyncio

from bench.stub_node.kv_forms import Event, KvForm
from bench.stub_node.kv_publisher import KvPublisher
from bench.stub_node.spec import EngineName

_STEP_S = 0.005
_FORMS: dict[EngineName, KvForm] = {
    "vllm": KvForm(),
    "sglang": KvForm(topic=b"kv-events", has_replay_topic=True, hashes="signed"),
    "openai": KvForm(),
}


class KvWire:
    """Takes a cache's events. Without `publishing` nobody hears of them."""

    def __init__(self) -> None:
        self.publisher: KvPublisher | None = None
        self._events: list[Event] = []
        self._has_some = asyncio.Event()

    def note(self, event: Event) -> None:
        """One thing that the cache did."""
        if self.publisher is not None:
            self._events.append(event)
            self._has_some.set()

    @asynccontextmanager
    async def publishing(self, engine: EngineName, *, host: str, port: int) -> AsyncIterator[None]:
        """Publish until the block is left, on this port and the next; 0 takes free ones."""
        with zmq.asyncio.Context() as context:
            publisher = KvPublisher(
                context, _FORMS[engine], host=host, port=port, replay_port=port + 1 if port else 0
            )
            async with publisher, asyncio.TaskGroup() as tasks:
                self.publisher = publisher
                sending = tasks.create_task(self._send(publisher))
                try:
                    yield
                finally:
                    self.publisher = None
                    sending.cancel()

    async def _send(self, publisher: KvPublisher) -> None:
        while True:
            await self._has_some.wait()
            await asyncio.sleep(_STEP_S)
            batch, self._events = self._events, []
            self._has_some.clear()
            await publisher.publish(time.time(), *batch)
