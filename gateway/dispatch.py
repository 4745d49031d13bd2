"""Getting one prompt answered: choose a node, relay its answer, choose again while nothing was sent.

A node that fails before the first byte is left out and the request goes to another, at most twice. From
the first byte on a failure is the client's to see: it cannot be taken back.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

import msgspec
import structlog

from gateway.errors import NodeBroke, NodeBusy, NodeFault, OutOfTime, UnknownModel
from gateway.nodes import completion, relay
from gateway.nodes.adapters import served_name
from gateway.nodes.body import BodySink
from gateway.nodes.connection import Exchange, Patience
from gateway.nodes.dialect import read_refusal
from gateway.nodes.model_name import splice_for
from gateway.nodes.relay import Pings, StreamShape, StreamSink
from gateway.nodes.roster import Roster
from gateway.nodes.usage import Usage, most_prompt_tokens
from gateway.ports import Headers, Reply
from gateway.request import CHAT, EMBEDDINGS, ChatRequest, node_body
from gateway.routing.choice import Ask
from gateway.routing.node import Node
from gateway.routing.router import Decision, Router
from gateway.scoring import Prefix
from gateway.telemetry import Telemetry
from gateway.waiting_room import WaitingRoom

_MAX_ATTEMPTS = 3
_MOST_ANSWER_TOKENS = 1_000_000
"""As many as a request may ask for."""

Priority = Literal["interactive", "background"]

log = structlog.get_logger()


class Job(msgspec.Struct):
    """A prompt on its way, and how far it got."""

    request: ChatRequest
    messages: bytes
    prefix: Prefix
    is_remembered: bool
    received_at: float
    request_id: str
    headers: Headers
    """For the node."""
    reply_headers: Callable[[Decision], Headers]
    priority: Priority = "interactive"
    tenant: str = ""
    sink: StreamSink | None = None
    """What came of a streamed answer so far."""
    waited_s: float = 0.0
    """For a node, and for those that failed."""
    most_tokens: int = 0
    """What its prompt can have, on the node that has it."""


class Served(msgspec.Struct, frozen=True):
    """An answer that is complete. One of `sink` and `body` is there, and `usage` with a body."""

    decision: Decision
    sink: StreamSink | None
    body: bytes = b""
    usage: Usage = Usage()
    first_s: float = 0.0
    """Seconds to the first byte; 0 where an answer comes as a whole and does not tell."""


class Dispatcher:
    """The nodes, and the way to them."""

    def __init__(
        self,
        roster: Roster,
        router: Router,
        room: WaitingRoom,
        telemetry: Telemetry,
        clock: Callable[[], float],
        patience: Patience,
    ) -> None:
        self._roster = roster
        self._router = router
        self._room = room
        self._telemetry = telemetry
        self._clock = clock
        self._patience = patience
        self.on_failed: Callable[[ChatRequest], None] = lambda _: None
        """Called with a user's request that no node answered, through no fault of its own or their load."""

    def check_model(self, model: str) -> None:
        """Raises `UnknownModel` if every node is known to serve only others."""
        nodes = self._router.nodes
        if nodes and all(node.models and model not in node.models for node in nodes):
            raise UnknownModel(model)

    async def serve(self, job: Job, reply: Reply) -> Served:
        """Relay an answer.

        Raises `UnknownModel`, `CannotServe`, `EngineRefused`, a `NodeFault`, or `OutOfTime`, for which
        no node is blamed: long answers are no failure of theirs.
        """
        budget, pings = _Budget(self._patience.total_s), Pings(reply, every_s=self._patience.ping_s)
        try:
            return await self._serve(job, reply, pings)
        except asyncio.CancelledError:
            if not budget.was_exceeded():
                raise
            self._telemetry.events["out_of_time"] += 1
            self._failed(job)
            raise OutOfTime(self._patience.total_s) from None
        except NodeFault as fault:
            if not isinstance(fault, NodeBusy):
                self._failed(job)
            raise
        finally:
            budget.close()
            pings.stop()

    def _failed(self, job: Job) -> None:
        if job.priority == "interactive":
            self.on_failed(job.request)

    def believed(self, job: Job, served: Served, usage: Usage) -> Usage:
        """What an engine counted, without what cannot be; that is noted of its node."""
        usage = usage.within(job.most_tokens, _MOST_ANSWER_TOKENS)
        if usage.is_odd:
            self._telemetry.events["odd_usage"] += 1
            if self._router.has(served.decision.node):
                self._router.node(served.decision.node).miscounts += 1
        return usage

    async def _serve(self, job: Job, reply: Reply, pings: Pings) -> Served:
        failed: list[str] = []
        while True:
            came_at = self._clock()
            decision = await self._room.admit(
                self._ask(job, failed), is_background=job.priority == "background"
            )
            sent_at = self._clock()
            job.waited_s += sent_at - came_at
            try:
                return await self._attempt(job, decision, reply, pings)
            except NodeFault:
                has_begun = job.sink is not None and job.sink.has_begun
                if has_begun or len(failed) + 1 == _MAX_ATTEMPTS or self._is_alone(job, decision, failed):
                    raise
                job.waited_s += self._clock() - sent_at
                failed.append(decision.node)
                self._telemetry.events["failover"] += 1

    def _ask(self, job: Job, failed: list[str]) -> Ask:
        prefix = job.prefix
        return Ask(
            model=job.request.target,
            key=prefix.key,
            prompt_tokens=prefix.prompt_tokens,
            held=prefix.held,
            bound_to=prefix.bound_to,
            excluded=failed,
            shared=prefix.head[1],
            places=prefix.places,
            tenant=job.tenant,
            tells=job.request.stream,
        )

    async def _attempt(self, job: Job, decision: Decision, reply: Reply, pings: Pings) -> Served:
        node, request = self._router.node(decision.node), job.request
        sent_at, since = self._clock(), node.breaker.openings
        first_s: float | None = None

        def on_first() -> None:
            nonlocal first_s
            first_s = self._clock() - sent_at
            pings.stop()
            self._began(decision, node, first_s)

        exchange: Exchange | None = None
        is_served = False
        try:
            body = _body_for(node, job)
            self._telemetry.overhead.observe(sent_at - job.received_at - job.waited_s)
            if request.stream:
                pings.start(lambda: job.reply_headers(decision))
            pool = self._roster.pool(node.id)
            exchange, head = await relay.send(pool, node.spec.api_key, job.headers, body, path=request.path)
            if head.status != 200:
                await relay.refuse(exchange, head, unserved=_unserved(request))
            reply.attach(exchange)
            if request.stream:
                served = await _stream(job, decision, exchange, reply, on_first)
            else:
                served = await _whole(job, decision, exchange)
            self._roster.answered(node)
            is_served = True
            return msgspec.structs.replace(served, first_s=first_s or 0.0)
        except NodeFault as fault:
            self._blame(job, node, fault, since)
            raise
        finally:
            reply.attach(None)
            if exchange is not None:
                exchange.abort()
            self._router.release(decision, self._clock(), was_computed=is_served or first_s is not None)
            self._room.freed(node.id)

    def _began(self, decision: Decision, node: Node, first_s: float) -> None:
        self._router.answered(decision, self._clock())
        self._telemetry.first_byte[node.id].observe(first_s)
        if node.breaker.state == "half_open":
            self._roster.began(node)
            self._room.look(node)

    def _blame(self, job: Job, node: Node, fault: NodeFault, since: int) -> None:
        """A busy node is not a broken one, and one that fails with vectors or an adapter may be well."""
        kind = type(fault).__name__
        log.warning("node failed", node=node.id, fault=kind, request_id=job.request_id)
        self._telemetry.events[f"node_{kind.removeprefix('Node').lower()}"] += 1
        is_adapters = type(fault) is NodeFault and job.request.target in node.parents
        if not isinstance(fault, NodeBusy) and job.request.path != EMBEDDINGS and not is_adapters:
            self._roster.broke(node, str(fault), since=since)

    def _is_alone(self, job: Job, decision: Decision, failed: list[str]) -> bool:
        """Whether no other node could take over, now or later: then its own error says more than ours."""
        return self._router.could_go(self._ask(job, failed)) <= {decision.node}


def _body_for(node: Node, job: Job) -> bytes:
    body = node_body(
        job.request,
        job.messages,
        model=served_name(node, job.request.target),
        takes_salt=node.spec.engine != "openai",
    )
    job.most_tokens = most_prompt_tokens(body, node.max_context)
    return body


def _unserved(request: ChatRequest) -> str:
    return "" if request.path == CHAT else f"the model '{request.model}' is not served under {request.path}"


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


async def _whole(job: Job, decision: Decision, exchange: Exchange) -> Served:
    sink = BodySink()
    exchange.pump(sink)
    await exchange.done
    body = sink.value()
    # Read here, where another node can still take over from one that sends no answer.
    usage = completion.usage_of(body)
    if error := read_refusal(body):
        raise relay.refusal(error, error.status or 500)
    body = splice_for(body, job.request.model).of(body)
    return Served(decision=decision, sink=None, body=body, usage=usage)


async def _stream(
    job: Job, decision: Decision, exchange: Exchange, reply: Reply, on_first: Callable[[], None]
) -> Served:
    shape = StreamShape(
        headers=job.reply_headers(decision),
        drops_usage=not job.request.wants_usage,
        holds_end=job.is_remembered,
        keeps_events=job.is_remembered,
        model=job.request.model,
    )
    job.sink = sink = StreamSink(reply, shape, on_first=on_first, on_comment=exchange.still_waits)
    exchange.pump(sink)
    await exchange.done
    if not sink.is_done:
        raise NodeBroke("its answer ended before it was complete")
    return Served(decision=decision, sink=sink)
