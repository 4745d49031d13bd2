"""The use case: answer one request for a completion, top to bottom.

    parse → who is it → conversation, window, lease (one call to the store) → prompt and its prefix chain
    → choose, relay (`dispatch`) → turn stored, binding moved, lease freed (one call) → expected vs actual

Text completions and embeddings go the way of a chat without a conversation.

A stream's end is held back until its turn is stored, so what a client saw finished is never lost.
"""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import structlog

from gateway import replay
from gateway.api.envelope import envelope
from gateway.clock import Clock
from gateway.dispatch import Dispatcher, Job, Served
from gateway.errors import GatewayError, Interrupted, NodeBroke
from gateway.fault_log import FaultLog
from gateway.keys.key import Caller, require
from gateway.nodes import completion
from gateway.nodes.completion import Completion
from gateway.nodes.usage import Usage
from gateway.plain_request import read_plain_request
from gateway.ports import Authenticator, Headers, Reply
from gateway.request import CHAT, EMBEDDINGS, ChatRequest, read_bare_request, read_request
from gateway.rollout.versions import Versions
from gateway.routing.router import Decision, Router
from gateway.scoring import Prefix, outcome, prefix_of_dialogue, prefix_of_request, resident, score
from gateway.settings import History
from gateway.telemetry import Telemetry
from gateway.upkeep import Upkeep
from history.conversation import Binding, ConversationKey
from history.conversation import Reply as AnswerFrame
from history.dialogue import Dialogues, Replay
from history.errors import HistoryError, InvalidMessages, LeaseLost, StoreUnavailable
from history.incoming import ANEW, Incoming, read_incoming
from history.lease_keeper import Stop
from history.message import Message
from history.message import answer as answer_message
from history.open_turn import Answer, Ask, OpenTurn
from history.stateless import windowed

log = structlog.get_logger()


class Call(msgspec.Struct, frozen=True):
    """One HTTP request, read completely."""

    headers: dict[bytes, bytes]
    body: bytes
    request_id: str
    received_at: float
    """In steady seconds."""
    path: str = CHAT
    """What is asked for; a conversation's `regenerate` is a chat as well."""
    regenerates: str | None = None
    """The conversation whose last message is to be answered anew."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Answers chat completions."""

    authenticator: Authenticator
    dialogues: Dialogues
    dispatcher: Dispatcher
    router: Router
    telemetry: Telemetry
    upkeep: Upkeep
    versions: Versions
    history: History
    clock: Clock
    replica: str
    """Unique to this process; leases are held in its name."""
    numbers: Iterator[int] = field(default_factory=itertools.count)
    faults: FaultLog = field(default_factory=FaultLog)

    async def answer(self, call: Call, reply: Reply) -> None:
        """Answer one request; every fault becomes an OpenAI error, before or inside the stream."""
        model, status = "", 200
        try:
            caller = self.authenticator.authenticate(
                call.headers.get(b"authorization"), now=self.clock.wall()
            )
            request = msgspec.structs.replace(self._read(call), salt=caller.salt)
            require(caller, scope="inference", model=request.model)
            model = request.model
            if request.conversation is None:
                await self._stateless(call, request, caller, reply)
            else:
                await self._remembered(call, request, caller, reply)
        except (GatewayError, HistoryError) as error:
            status = self._fail(call, error, reply)
        except Exception as error:
            log.exception("unforeseen error", request_id=call.request_id)
            status = self._fail(call, error, reply)
        self.telemetry.counted(model, status)

    def _read(self, call: Call) -> ChatRequest:
        if call.regenerates is not None:
            return read_bare_request(call.body, call.headers, conversation=call.regenerates)
        if call.path != CHAT:
            return read_plain_request(call.body, call.headers, path=call.path)
        return read_request(
            call.body,
            call.headers,
            adopt_cache_key=self.history.adopt_cache_key,
            stateless=self.history.stateless,
        )

    async def _stateless(self, call: Call, request: ChatRequest, caller: Caller, reply: Reply) -> None:
        if request.is_windowed:
            messages = windowed(request.messages, self.history.rules.window.rule())
            request = msgspec.structs.replace(request, messages=messages)
        request = self.versions.of_stateless(request, caller.tenant)
        prefix = prefix_of_request(request, self.router, self.clock.steady())
        job = self._job(call, request, caller, prefix)
        served = await self.dispatcher.serve(job, reply)
        if served.sink is not None:
            usage = completion.usage_in(served.sink.last) or Usage()
            reply.finish()
        else:
            _send_body(job, served, reply)
            usage = served.usage
        if request.path == EMBEDDINGS:
            return  # they teach nothing of prompts
        usage = self.dispatcher.believed(job, served, usage)
        self._note(request, prefix, served, usage, call.received_at)
        self.router.note(served.decision, prefix.placements(served.decision, usage), self.clock.steady())

    async def _remembered(self, call: Call, request: ChatRequest, caller: Caller, reply: Reply) -> None:
        key = ConversationKey(tenant=caller.tenant, id=request.conversation or "")
        incoming = ANEW if call.regenerates is not None else read_incoming(request.messages)
        stopping = Stopping(asyncio.current_task())
        try:
            opened = await self.dialogues.open(key, incoming, self._ask(request, incoming, stopping))
        except StoreUnavailable:
            if self.history.on_outage == "fail_closed" or not _stands_alone(incoming):
                raise
            self.telemetry.events["answered_without_memory"] += 1
            await self._stateless(call, msgspec.structs.replace(request, forgets=True), caller, reply)
            return
        if isinstance(opened, Replay):
            self.telemetry.events["replay"] += 1
            request = msgspec.structs.replace(request, version=opened.turn.reply.version)
            replay.send(opened.turn, request, reply, self._frame(call, request))
            return
        turn = opened
        job: Job | None = None
        try:
            now = self.clock.now()
            request = self.versions.of_turn(request, turn, now)
            prefix = prefix_of_dialogue(request, turn, self.router, now)
            job = self._job(call, request, caller, prefix)
            job.messages = turn.prompt.json()
            if incoming.is_greeting:
                await self._greet(call, request, turn, reply)
            else:
                served = await self.dispatcher.serve(job, reply)
                await self._store(job, turn, prefix, served, reply)
        except asyncio.CancelledError:
            await self._stopped(stopping, job, turn)
            raise
        except BaseException:
            await turn.release()
            raise

    async def _store(self, job: Job, turn: OpenTurn, prefix: Prefix, served: Served, reply: Reply) -> None:
        """Persist before done: only then the client sees the end."""
        reply.hold_together()
        said = (
            completion.from_events(served.sink.events) if served.sink else completion.from_json(served.body)
        )
        usage = self.dispatcher.believed(job, served, said.usage)
        said = msgspec.structs.replace(said, usage=usage, model=job.request.model)
        version = job.request.version
        message = _message(said)
        link, tokens = resident(turn, prefix, message, said.usage)
        now = self.clock.now()
        binding = Binding(served.decision.node, link, tokens, now.wall, version=version) if tokens else None
        ended = await turn.commit(Answer(message=message, reply=_frame_of(said, version), binding=binding))
        if served.sink is not None:
            served.sink.let_go()
            reply.finish()
        else:
            _send_body(job, served, reply)
        self._note(job.request, prefix, served, said.usage, job.received_at)
        self.router.note(
            served.decision, [(link, tokens), *prefix.placements(served.decision, said.usage)], now.steady
        )
        self._count_turn(turn)
        self.versions.stored(job.request, turn, now=now.wall)
        self.upkeep.after(ended, job.request)

    async def _greet(self, call: Call, request: ChatRequest, turn: OpenTurn, reply: Reply) -> None:
        """The character speaks first, in the client's words: stored as a turn, no model is asked."""
        self.dispatcher.check_model(request.target)
        reply.hold_together()
        frame = AnswerFrame(
            id=f"chatcmpl-{call.request_id}",
            model=request.model,
            created=int(self.clock.wall()),
            finish_reason="stop",
            version=request.version,
        )
        await turn.commit(Answer(message=None, reply=frame))
        replay.send_message(
            turn.layout.plan.draft.messages[-1], frame, request, reply, self._frame(call, request)
        )

    async def _stopped(self, stopping: "Stopping", job: Job | None, turn: OpenTurn) -> None:
        """The task was cancelled: a newer message, a lost lease, or the client left."""
        if stopping.reason == "lost":
            stopping.resume()
            await turn.release()
            raise LeaseLost
        keeps = stopping.reason == "interrupted" or self.history.on_disconnect == "incomplete"
        if not keeps:
            await turn.release()
            return
        if stopping.reason == "interrupted":
            stopping.resume()
        await turn.commit(_unfinished(job))
        if stopping.reason == "interrupted":
            raise Interrupted("a newer message came; both are answered together there")

    def _ask(self, request: ChatRequest, incoming: Incoming, stopping: "Stopping") -> Ask:
        persona = incoming.persona
        return Ask(
            owner=f"{self.replica}-{next(self.numbers)}",
            on_stop=stopping.stop,
            on_busy=request.on_busy or self.history.rules.on_busy,
            must_exist=request.must_exist,
            idempotency_key=request.idempotency_key,
            body_hash=request.body_hash,
            is_retry=request.is_retry,
            user=request.user,
            character=request.character or (persona.digest.hex() if persona else ""),
            room=self.router.context(self.versions.plain(request.model)),
            answer_tokens=request.answer_tokens,
            note=request.tail.note,
            lore=request.tail.lore,
        )

    def _job(self, call: Call, request: ChatRequest, caller: Caller, prefix: Prefix) -> Job:
        def reply_headers(decision: Decision) -> Headers:
            headers = (
                *self._frame(call, request),
                (b"x-friendo-route", decision.route.encode()),
                (b"x-friendo-cached-expected", b"%d" % decision.expected),
            )
            if "admin" in caller.scopes:
                headers = (*headers, (b"x-friendo-node", decision.node.encode()))
            return headers

        return Job(
            request=request,
            messages=request.messages,
            prefix=prefix,
            is_remembered=request.conversation is not None and not request.forgets,
            received_at=call.received_at,
            request_id=call.request_id,
            # An id of ours: engines take it for theirs, and two clients may send the same one.
            headers=((b"x-request-id", f"{call.request_id}-{next(self.numbers)}".encode()),),
            reply_headers=reply_headers,
            tenant=caller.tenant,
        )

    def _frame(self, call: Call, request: ChatRequest) -> Headers:
        """The headers that every answer has."""
        elapsed_ms = int((self.clock.steady() - call.received_at) * 1000)
        headers: Headers = (
            (b"x-request-id", call.request_id.encode()),
            (b"openai-processing-ms", b"%d" % elapsed_ms),
        )
        if request.version:
            headers = (*headers, (b"x-friendo-version", request.version.encode("ascii", "backslashreplace")))
        if request.conversation is None:
            return headers
        if request.forgets:
            headers = (*headers, (b"x-friendo-memory", b"unavailable"))
        return (*headers, (b"x-session-id", request.conversation.encode("ascii", "backslashreplace")))

    def _fail(self, call: Call, error: Exception, reply: Reply) -> int:
        shown = envelope(error)
        self.faults.note(error, now=self.clock.steady())
        if reply.is_finished:
            return shown.status
        if shown.status >= 500 or reply.is_started:
            log.warning("not answered", request_id=call.request_id, status=shown.status, code=shown.code)
        if reply.is_started:
            reply.write(shown.event())
            reply.finish()
            return shown.status
        body = shown.json()
        reply.start(shown.status, shown.response_headers(call.request_id), length=len(body))
        reply.write(body)
        reply.finish()
        return shown.status

    def _note(
        self, request: ChatRequest, prefix: Prefix, served: Served, usage: Usage, asked_at: float
    ) -> None:
        decision = served.decision
        self.router.learn(decision, outcome(usage, served.first_s))
        block = self.router.block_size(decision.node)
        self.versions.answered(request, usage, served.first_s)
        key, scored = score(request.target, prefix, decision, usage, block)
        bound_at = prefix.bound_at if prefix.bound_to == decision.node else None
        if bound_at is not None and (scored.cached_tokens or 0) >= scored.expected_tokens > 0:
            self.router.confirmed(decision.node, bound_at, asked_at)
        self.telemetry.scored(key, scored, now=self.clock.wall())

    def _count_turn(self, turn: OpenTurn) -> None:
        layout, events = turn.layout, self.telemetry.events
        events["branch"] += layout.plan.is_branch
        events["epoch"] += not layout.is_new and layout.persona != layout.conversation.persona
        events["ceiling"] += turn.exceeds_ceiling()


class Stopping:
    """Lets a lease's keeper stop the task that writes the answer, and that task know why."""

    def __init__(self, task: "asyncio.Task[None] | None") -> None:
        self._task = task
        self.reason: Stop | None = None

    def stop(self, reason: Stop) -> None:
        """Cancel the task, for this reason."""
        self.reason = reason
        if self._task is not None:
            self._task.cancel()

    def resume(self) -> None:
        """The task goes on after all, to tell its client what happened."""
        if self._task is not None:
            self._task.uncancel()


def _stands_alone(incoming: Incoming) -> bool:
    """Whether a model can answer these messages without what came before."""
    return any(message.role == "user" for message in incoming.messages) and not incoming.is_greeting


def _send_body(job: Job, served: Served, reply: Reply) -> None:
    headers = ((b"content-type", b"application/json"), *job.reply_headers(served.decision))
    reply.start(200, headers, length=len(served.body))
    reply.write(served.body)
    reply.finish()


def _message(said: Completion) -> Message:
    try:
        return answer_message(said.message)
    except InvalidMessages as error:
        raise NodeBroke(f"the node's message is malformed: {error}") from error


def _frame_of(said: Completion, version: str) -> AnswerFrame:
    return AnswerFrame(
        id=said.id,
        model=said.model,
        created=said.created,
        finish_reason=said.finish_reason,
        prompt_tokens=said.usage.prompt_tokens,
        completion_tokens=said.usage.completion_tokens,
        cached_tokens=said.usage.cached or 0,
        version=version,
    )


def _unfinished(job: Job | None) -> Answer:
    """What a model had said when it was stopped; nothing, if it had not begun or makes no sense."""
    nothing = Answer(message=None, reply=AnswerFrame(), status="incomplete")
    if job is None or job.sink is None or not job.sink.events:
        return nothing
    try:
        said = completion.from_events(job.sink.events)
        said = msgspec.structs.replace(said, model=job.request.model)
        frame = _frame_of(said, job.request.version)
        return Answer(message=_message(said), reply=frame, status="incomplete")
    except NodeBroke:
        return nothing
