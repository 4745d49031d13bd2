"""The connection to one node's KV events: a subscription, its watch, and replays of what was missed.

Engines publish on ZeroMQ and never wait for anybody: what a subscriber is too slow for, or not there for, is
dropped, and only the numbers of the batches tell. Nothing here ends the process, whatever a node sends or
does not send. A node that is silent is idle, not dead; whether the connection stands is told by ZeroMQ's own
heartbeats. What a node's cache holds according to all this is in its `Retention`.

An engine *connects* to an endpoint without a wildcard instead of listening on it, and then two sides wait for
each other for ever: `notes` says so, with the flag that mends it.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog
import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from gateway.nodes.kv_events import MAX_PAYLOAD, EndOfReplay, Frame, Malformed, read_frames, replay_request
from gateway.nodes.kv_sequence import MAX_REPLAY, Ask, Counts, KvSequence
from gateway.routing.kv_source import KvSource
from gateway.routing.retention import Retention

_QUEUE = 10_000
"""Messages that wait here while a replay runs; beyond it ZeroMQ drops, and the numbers tell."""
_HEARTBEAT_MS = 5_000
_DEAD_AFTER_MS = 15_000
_RECONNECT_MS = 200
_RECONNECT_MOST_MS = 5_000
_REPLAY_WITHIN_S = 3.0
_REPLAY_TRIES = 3
_REPLAY_BYTES = 64 * 1024 * 1024
_REPLAY_PAUSE_S = 30.0
"""No further try at a replay endpoint that did not answer: each one holds up the live events."""
_AT_A_STRETCH = 32
"""Messages taken before others get their turn on the loop."""
_RETRY_S = 5.0
_STUCK_S = 15.0
"""ZeroMQ gives a connection up for good after a breach of its protocol, a message too large for example."""
_TOLD_EVERY_S = 60.0
_LISTEN = (
    '--kv-events-config \'{"enable_kv_cache_events":true,"publisher":"zmq",'
    '"endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5558"}\''
)
_WATCHED = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.DISCONNECTED
    | zmq.Event.CONNECT_DELAYED
    | zmq.Event.CONNECT_RETRIED
)

log = structlog.get_logger()


class KvFeed:
    """Follows one node. `run` has to be a task of whoever owns the node; `retention` is what it learns."""

    def __init__(
        self,
        node: str,
        source: KvSource,
        retention: Retention,
        *,
        context: zmq.asyncio.Context,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.retention = retention
        self.source = source
        self._node = node
        self._context = context
        self._clock = clock
        self._sequence = KvSequence(retention)
        self._is_linked = False
        self._refusals = 0
        self._fault = ""
        self._replay_after = 0.0
        self._is_replay_silent = False
        self._told = Counts()
        self._told_at = -math.inf

    @property
    def counts(self) -> Counts:
        """What came so far."""
        return self._sequence.counts

    @property
    def is_linked(self) -> bool:
        """Whether there is a connection to the publisher."""
        return self._is_linked

    def notes(self, *, has_answered: bool) -> tuple[str, ...]:
        """What is wrong and what mends it; `has_answered`: the node served requests since."""
        found = []
        endpoint = self.source.endpoint
        if self._fault:
            found.append(f"KV events: {self._fault}")
        elif not self._is_linked and self._refusals and not self.source.listen:
            found.append(
                f"nobody listens for KV events at {endpoint}: an engine whose endpoint has no wildcard "
                f'connects instead of listening; start it with {_LISTEN} (SGLang also knows "bind":true)'
            )
        elif self._is_linked and not self.counts.batches and has_answered:
            found.append(
                f"{endpoint} is connected, but the node answers requests without a KV event: are prefix "
                f"caching and enable_kv_cache_events on, and is its topic {self.source.topic!r}?"
            )
        if self.counts.batches and not self.source.replay:
            found.append(f'lost KV events cannot be asked for again: add "replay_endpoint", as in {_LISTEN}')
        elif self._is_replay_silent:
            found.append(
                f"{self.source.replay} does not repeat KV events: is it the engine's replay_endpoint?"
            )
        return tuple(found)

    async def run(self) -> None:
        """Follow the node until cancelled."""
        while True:
            try:
                await self._follow()
            except* zmq.ContextTerminated:
                raise
            except* zmq.ZMQError as errors:
                self._fault = f"{errors.exceptions[0]}, with {self.source.endpoint}"
                log.warning("KV events cannot be followed", node=self._node, problem=self._fault)
            await asyncio.sleep(_RETRY_S)

    async def _follow(self) -> None:
        subscription = self._context.socket(zmq.SUB)
        monitor = subscription.get_monitor_socket(_WATCHED)
        try:
            self._open(subscription)
            self._fault = ""
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(subscription))
                await self._watch(monitor)
                reading.cancel()
        finally:
            subscription.disable_monitor()
            monitor.close(linger=0)
            subscription.close(linger=0)
            self._unlink()

    def _open(self, subscription: zmq.asyncio.Socket) -> None:
        _limit(subscription)
        subscription.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        subscription.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_AFTER_MS)
        subscription.setsockopt(zmq.CONNECT_TIMEOUT, _RECONNECT_MOST_MS)
        subscription.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        subscription.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
        subscription.setsockopt(zmq.SUBSCRIBE, self.source.topic.encode())
        if self.source.listen:
            subscription.bind(self.source.endpoint)
        else:
            subscription.connect(self.source.endpoint)

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        """Note what becomes of the connection; returns when nobody tries to make one any more."""
        while True:
            is_awaited = not self._is_linked and not self.source.listen
            try:
                async with asyncio.timeout(_STUCK_S if is_awaited else None):
                    event = (await recv_monitor_message(monitor))["event"]
            except TimeoutError:
                return
            if event == zmq.Event.HANDSHAKE_SUCCEEDED:
                self._is_linked, self._refusals = True, 0
                self._sequence.connected()
            elif event == zmq.Event.DISCONNECTED:
                self._unlink()
            elif event == zmq.Event.CONNECT_RETRIED:
                self._refusals += 1

    def _unlink(self) -> None:
        if self._is_linked:
            self._is_linked = False
            self._sequence.disconnected(self._clock())

    async def _read(self, subscription: zmq.asyncio.Socket) -> None:
        while True:
            await self._take(await subscription.recv_multipart())
            with suppress(zmq.Again):
                for _ in range(_AT_A_STRETCH):
                    await self._take(await subscription.recv_multipart(zmq.NOBLOCK))
            self._tell()
            await asyncio.sleep(0)

    async def _take(self, parts: Sequence[bytes]) -> None:
        frame = read_frames(parts)
        if not isinstance(frame, Frame):
            self._sequence.unreadable()
            return
        ask = self._sequence.take(frame, self._clock())
        if ask is None:
            return
        frames = await self._replay(ask)
        for step, _ in enumerate(self._sequence.fill(frames, self._clock())):
            if step % _AT_A_STRETCH == 0:
                await asyncio.sleep(0)

    async def _replay(self, ask: Ask) -> list[Frame]:
        """What the publisher still has of the batches asked for; nothing if it cannot be asked."""
        if not self.source.replay or self._clock() < self._replay_after:
            return []
        got: dict[int, Frame] = {}
        start = ask.start
        for _ in range(_REPLAY_TRIES):
            if not await self._repeat(start, ask.stop, got):
                break
            start = next((seq for seq in range(min(got), ask.stop) if seq not in got), ask.stop)
            if start >= ask.stop:
                break
        self._is_replay_silent = not got and ask.stop > 0
        if self._is_replay_silent:
            self._replay_after = self._clock() + _REPLAY_PAUSE_S
        return list(got.values())

    async def _repeat(self, start: int, stop: int, got: dict[int, Frame]) -> bool:
        """Ask once and add what comes to `got`; whether anything new came.

        A ROUTER drops what its client is too slow for, so what comes may have holes.
        """
        before = len(got)
        dealer = self._context.socket(zmq.DEALER)
        try:
            _limit(dealer)
            dealer.connect(self.source.replay)
            async with asyncio.timeout(_REPLAY_WITHIN_S):
                await dealer.send_multipart(replay_request(start))
                room = _REPLAY_BYTES
                while room > 0 and len(got) <= MAX_REPLAY:
                    frame = read_frames(await dealer.recv_multipart())
                    if isinstance(frame, EndOfReplay) or (isinstance(frame, Frame) and frame.seq >= stop):
                        break
                    if isinstance(frame, Malformed):
                        self._sequence.unreadable()
                        continue
                    got[frame.seq] = frame
                    room -= len(frame.payload)
        except TimeoutError:
            pass  # what came until then is as good
        finally:
            dealer.close(linger=0)
        return len(got) > before

    def _tell(self) -> None:
        """What an operator should know, at most once a minute."""
        counts, told, now = self.counts, self._told, self._clock()
        lost = counts.gaps - counts.gaps_filled
        is_news = (lost, counts.restarts, counts.malformed, counts.unknown) != (
            told.gaps - told.gaps_filled,
            told.restarts,
            told.malformed,
            told.unknown,
        )
        if not is_news or now - self._told_at < _TOLD_EVERY_S:
            return
        self._told, self._told_at = replace(counts), now
        log.warning(
            "KV events are incomplete",
            node=self._node,
            lost_gaps=lost,
            restarts=counts.restarts,
            malformed=counts.malformed,
            unknown=sorted(counts.unknown_types),
        )


def _limit(socket: zmq.asyncio.Socket) -> None:
    socket.setsockopt(zmq.RCVHWM, _QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, 1)
