"""The load client: a bounded closed loop over keep-alive connections that verifies every reply it counts.

Run as `python -m bench.overhead.client`: it reads one LoadPlan as JSON from standard input and prints one
LoadResult. It is a process of its own so that its CPU time is nobody else's.
"""

import asyncio
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import httptools
import msgspec
import uvloop

from bench.overhead import prompts
from bench.overhead.load import PROBE_CONNECTIONS, LoadPlan, LoadResult
from bench.overhead.replies import CHUNK_INTERVAL_S, CONTENT_CHUNKS

_REPLY_S = CHUNK_INTERVAL_S * (CONTENT_CHUNKS + 1)
# Starts spread by the golden ratio: no two streams tick in step, however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2
_PROBE_SEED = 500
_EXCERPT = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer as it arrived; `first_byte_at` is 0.0 when no body came."""

    status: int
    body: bytes
    first_byte_at: float
    ended_at: float


@dataclass(slots=True)
class Log:
    """What the connections of one load have seen so far."""

    first_byte_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    failures: int = 0
    first_failure: str = ""

    def fail(self, why: str) -> None:
        self.failures += 1
        self.first_failure = self.first_failure or why


class ServerConnection(asyncio.Protocol):
    """One connection to a server, one request in flight at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._body: list[bytes] = []
        self._first_byte_at = 0.0

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass, only alike

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError(f"connection closed before the reply ended ({exc})"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._reply is not None and not self._reply.done():
                self._reply.set_exception(ConnectionError(f"not HTTP: {error}"))
            self.close()

    def on_body(self, body: bytes) -> None:
        if not self._body:
            self._first_byte_at = time.perf_counter()
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(
                Reply(
                    status=self._parser.get_status_code(),
                    body=b"".join(self._body),
                    first_byte_at=self._first_byte_at,
                    ended_at=time.perf_counter(),
                )
            )
        if not self._parser.should_keep_alive():
            self.close()

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        """Send a request; the future holds its whole reply, or ConnectionError."""
        assert self._transport is not None
        self._body = []
        self._first_byte_at = 0.0
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._reply

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def complaint(reply: Reply, *, stream: bool) -> str:
    """Why the reply is not the one that the upstream gave, or an empty string."""
    if reply.status != 200:
        return f"status {reply.status}: {reply.body[:_EXCERPT].decode(errors='replace')}"
    if not stream:
        whole = reply.body.endswith(b"}") and b'"finish_reason":"stop"' in reply.body
        return "" if whole else "the JSON answer is not whole"
    chunks = reply.body.count(b'"content":" word')
    if chunks != CONTENT_CHUNKS:
        return f"{chunks} content chunks instead of {CONTENT_CHUNKS}"
    if b'"usage":{' not in reply.body[-600:]:
        return "no usage before [DONE]"
    return "" if reply.body.endswith(b"data: [DONE]\n\n") else "the stream does not end with [DONE]"


def requests_of(plan: LoadPlan, connection: int) -> Iterator[bytes]:
    """The requests that one connection sends, rendered as they are needed."""
    for turn in range(plan.first_turn, plan.first_turn + plan.requests_per_connection):
        headers = dict(plan.headers)
        if plan.dialogue:
            headers["x-session-id"] = f"{plan.dialogue}-{connection}"
            messages = prompts.dialogue_messages(connection, turn, opens=turn == 0)
        else:
            messages = prompts.stateless_messages(connection, turn)
        yield prompts.http_request(prompts.chat_body(plan.model, messages, stream=plan.stream), headers)


def probe_requests(plan: LoadPlan, probe: int) -> Iterator[bytes]:
    """Direct requests without end; the load's end stops them."""
    turn = 0
    while True:
        messages = prompts.stateless_messages(_PROBE_SEED + probe, turn)
        yield prompts.http_request(prompts.chat_body(plan.model, messages, stream=plan.stream), {})
        turn += 1


async def keep_asking(
    port: int, requests: Iterator[bytes], *, log: Log, stream: bool, delay_s: float
) -> None:
    """One connection's life: ask, wait for the whole reply, ask again; reconnect after a failure."""
    await asyncio.sleep(delay_s)
    connection: ServerConnection | None = None
    try:
        for request in requests:
            try:
                if connection is None or not connection.open:
                    connection = await _connect(port)
                asked_at = time.perf_counter()
                reply = await connection.ask(request)
            except OSError as error:
                log.fail(str(error))
                continue
            if why := complaint(reply, stream=stream):
                log.fail(why)
                continue
            log.first_byte_ms.append((reply.first_byte_at - asked_at) * 1000)
            log.total_ms.append((reply.ended_at - asked_at) * 1000)
    finally:
        if connection is not None:
            connection.close()


async def _connect(port: int) -> ServerConnection:
    _, connection = await asyncio.get_running_loop().create_connection(ServerConnection, "127.0.0.1", port)
    return connection


async def run(plan: LoadPlan) -> LoadResult:
    """Put the load on, with the direct probes beside it, and report what came back."""
    log, probe_log = Log(), Log()
    started_at = time.perf_counter()
    try:
        async with asyncio.timeout(plan.deadline_s), asyncio.TaskGroup() as probes:
            running = [
                probes.create_task(
                    keep_asking(
                        plan.probe_ports[index % len(plan.probe_ports)],
                        probe_requests(plan, index),
                        log=probe_log,
                        stream=plan.stream,
                        delay_s=_REPLY_S * index / PROBE_CONNECTIONS,
                    )
                )
                for index in range(PROBE_CONNECTIONS if plan.probe_ports else 0)
            ]
            await _ask_on_all_connections(plan, log)
            for probe in running:
                probe.cancel()
    except TimeoutError:
        log.fail(f"the load was not done after {plan.deadline_s:.0f} s")
    return LoadResult(
        replies=len(log.total_ms),
        failures=log.failures + probe_log.failures,
        first_failure=log.first_failure or probe_log.first_failure,
        wall_s=time.perf_counter() - started_at,
        first_byte_ms=log.first_byte_ms,
        total_ms=log.total_ms,
        probe_first_byte_ms=probe_log.first_byte_ms,
    )


async def _ask_on_all_connections(plan: LoadPlan, log: Log) -> None:
    spread = plan.stream and not plan.lockstep
    async with asyncio.TaskGroup() as load:
        for index in range(plan.connections):
            load.create_task(
                keep_asking(
                    plan.ports[index % len(plan.ports)],
                    requests_of(plan, index),
                    log=log,
                    stream=plan.stream,
                    delay_s=_REPLY_S * ((index * _GOLDEN) % 1.0) if spread else 0.0,
                )
            )


def main() -> None:
    """Read the plan, run it, print the result."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadPlan)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(plan))) + b"\n")


if __name__ == "__main__":
    main()
