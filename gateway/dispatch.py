"""Getting one prompt answered: choose a node, relay its answer, choose again while nothing was sent.

A node that fails before the first byte is left out and the request goes to another, at most twice. From
the first byte on a failure is the client's to see: it cannot be taken back.
"""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from gateway.errors import (
    CannotServe,
    NodeBroke,
    NodeBusy,
    NodeFault,
    NodesDown,
    NodesFull,
    OutOfTime,
    UnknownModel,
)
from gateway.nodes import completion, relay
from gateway.nodes.body import BodySink
from gateway.nodes.completion import Usage
from gateway.nodes.connection import Exchange
from gateway.nodes.relay import StreamShape, StreamSink
from gateway.nodes.roster import Roster
from gateway.ports import Headers, Reply
from gateway.request import ChatRequest, node_body
from gateway.routing.choice import Ask, Decision, NoNode
from gateway.routing.prefix import expected_tokens
from gateway.routing.router import Router
from gateway.telemetry import Telemetry

_MAX_ATTEMPTS = 3

log = structlog.get_logger()


class Job(msgspec.Struct):
    """A prompt on its way, and how far it got."""

    request: ChatRequest
    messages: bytes
    key: bytes
    """What rendezvous goes by."""
    held: dict[str, int]
    """Per node, the tokens of this prompt's prefix that it should still hold."""
    prompt_tokens: int
    """Estimated."""
    bound_to: str | None
    is_remembered: bool
    received_at: float
    request_id: str
    headers: Headers
    """For the node."""
    reply_headers: Callable[[Decision], Headers]
    sink: StreamSink | None = None
    """What came of a streamed answer so far."""


class Served(msgspec.Struct, frozen=True):
    """An answer that is complete. One of `sink` and `body` is there, and `usage` with a body."""

    decision: Decision
    sink: StreamSink | None
    body: bytes = b""
    usage: Usage = Usage()
    first_s: float = 0.0
    """Seconds to the first byte; 0 where an answer comes as a whole and does not tell."""


class Dispatcher:
    """The nodes, and the way to them. `total_s` is what one answer may take, all attempts together."""

    def __init__(
        self,
        roster: Roster,
        router: Router,
        telemetry: Telemetry,
        clock: Callable[[], float],
        *,
        total_s: float,
    ) -> None:
        self._roster = roster
        self._router = router
        self._telemetry = telemetry
        self._clock = clock
        self._total_s = total_s

    def check_model(self, model: str) -> None:
        """Raises `UnknownModel` if every node is known to serve only others."""
        if all(node.models and model not in node.models for node in self._router.nodes):
            raise UnknownModel(model)

    async def serve(self, job: Job, reply: Reply) -> Served:
        """Relay an answer.

        Raises `UnknownModel`, `CannotServe`, `EngineRefused`, a `NodeFault`, or `OutOfTime`, for which
        no node is blamed: long answers are no failure of theirs.
        """
        budget = _Budget(self._total_s)
        try:
            return await self._serve(job, reply)
        except asyncio.CancelledError:
            if not budget.was_exceeded():
                raise
            self._telemetry.events["out_of_time"] += 1
            raise OutOfTime(self._total_s) from None
        finally:
            budget.close()

    async def _serve(self, job: Job, reply: Reply) -> Served:
        failed: list[str] = []
        while True:
            decision = self._router.route(self._ask(job, failed))
            if isinstance(decision, NoNode):
                raise _none(decision, job.request.model)
            try:
                return await self._attempt(job, decision, reply)
            except NodeFault as fault:
                self._blame(job, decision.node, fault)
                if reply.is_started or len(failed) + 1 == _MAX_ATTEMPTS or self._is_alone(decision, failed):
                    raise
                failed.append(decision.node)
                self._telemetry.events["failover"] += 1

    def _ask(self, job: Job, failed: list[str]) -> Ask:
        expected = {
            node: expected_tokens(held, job.prompt_tokens, self._router.node(node).block_size)
            for node, held in job.held.items()
            if self._router.has(node)
        }
        return Ask(
            model=job.request.model,
            key=job.key,
            prompt_tokens=job.prompt_tokens,
            expected=expected,
            bound_to=job.bound_to,
            excluded=failed,
        )

    async def _attempt(self, job: Job, decision: Decision, reply: Reply) -> Served:
        node = self._router.node(decision.node)
        body = node_body(job.request, job.messages, model=job.request.model)
        sent_at = self._clock()
        self._telemetry.overhead.observe(sent_at - job.received_at)
        first_s: float | None = None

        def on_first() -> None:
            nonlocal first_s
            first_s = self._clock() - sent_at
            self._router.answered(decision)
            self._telemetry.first_byte[node.id].observe(first_s)

        exchange: Exchange | None = None
        try:
            pool = self._roster.pool(node.id)
            exchange, head = await relay.send(pool, node.spec.api_key, job.headers, body)
            if head.status != 200:
                await relay.refuse(exchange, head)
            reply.attach(exchange)
            if job.request.stream:
                served = await _stream(job, decision, exchange, reply, on_first)
            else:
                served = await _whole(decision, exchange)
            self._roster.answered(node.id)
            return msgspec.structs.replace(served, first_s=first_s or 0.0)
        finally:
            reply.attach(None)
            if exchange is not None:
                exchange.abort()
            self._router.release(decision, was_answered=first_s is not None)

    def _blame(self, job: Job, name: str, fault: NodeFault) -> None:
        """A busy node is not a broken one."""
        log.warning("node failed", node=name, fault=type(fault).__name__, request_id=job.request_id)
        if not isinstance(fault, NodeBusy):
            self._roster.failed(self._router.node(name), str(fault))

    def _is_alone(self, decision: Decision, failed: list[str]) -> bool:
        """Whether no other node could take over: then its own error says more than ours."""
        fit = {one.node for one in decision.candidates if one.unfit is None}
        return fit <= {decision.node, *failed}


class _Budget:
    """Cancels the task that made it when its seconds are over: `asyncio.timeout` at a fifth of its cost."""

    __slots__ = ("_before", "_is_spent", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._is_spent = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._spend)

    def was_exceeded(self) -> bool:
        """Whether the cancellation that arrived is this one and no other; it counts as done then."""
        return self._is_spent and self._task.uncancel() <= self._before

    def close(self) -> None:
        """What follows has all the time."""
        self._timer.cancel()

    def _spend(self) -> None:
        self._is_spent = True
        self._task.cancel()


async def _whole(decision: Decision, exchange: Exchange) -> Served:
    sink = BodySink()
    exchange.pump(sink)
    await exchange.done
    body = sink.value()
    # Read here, where another node can still take over from one that sends no JSON.
    return Served(decision=decision, sink=None, body=body, usage=completion.usage_of(body))


async def _stream(
    job: Job, decision: Decision, exchange: Exchange, reply: Reply, on_first: Callable[[], None]
) -> Served:
    shape = StreamShape(
        headers=job.reply_headers(decision),
        drops_usage=not job.request.wants_usage,
        holds_end=job.is_remembered,
        keeps_events=job.is_remembered,
    )
    job.sink = sink = StreamSink(reply, shape, on_first)
    exchange.pump(sink)
    await exchange.done
    if not sink.is_done:
        raise NodeBroke("its answer ended before it was complete")
    return Served(decision=decision, sink=sink)


def _none(none: NoNode, model: str) -> UnknownModel | CannotServe:
    if none.reason == "unknown_model":
        return UnknownModel(model)
    if none.reason == "all_full":
        return NodesFull(f"every node that serves '{model}' is at its limit")
    return NodesDown(f"no node that serves '{model}' is up", retry_after_ms=2000)
