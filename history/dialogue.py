"""One turn of a dialogue, from the messages that came in to the turn that is stored.

The use case of this package: `Dialogues.open` takes the lease and lays out the prompt, whoever called it
gets an answer from a model, `OpenTurn.commit` writes the turn. Two calls to the store, whatever the
dialogue's length.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from history.conversation import (
    Binding,
    Conversation,
    ConversationKey,
    Lease,
    Reply,
    Status,
    Turn,
    token_estimate,
)
from history.errors import ConversationBusy, ConversationMismatch, ConversationNotFound
from history.incoming import Draft, Incoming, NeedTurn, Plan, plan_dialogue, plan_new
from history.lease_keeper import LeaseKeeper, Stop
from history.message import Message
from history.ports import Begun, Busy, Change, Claim, ConversationStore, Missing
from history.prompt import Prompt, build
from history.waiting_line import WaitingLine
from history.window import WindowRule, advance, branch_cut, exceeds_ceiling

OnBusy = Literal["queue", "restart", "reject"]


class DialogueRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How turns are taken. Times are in seconds."""

    window: WindowRule = WindowRule()
    on_busy: OnBusy = "queue"
    queue_limit: int = 16
    """Messages that may wait for one conversation; the next one is refused."""
    queue_wait_s: float = 120.0
    lease_s: float = 5.0
    """A gateway that died frees its conversations after this."""


class Ask(msgspec.Struct, frozen=True):
    """One request's wishes towards its conversation."""

    owner: str
    on_stop: Callable[[Stop], None]
    on_busy: OnBusy
    must_exist: bool = False
    idempotency_key: str = ""
    body_hash: bytes = b""
    is_retry: bool = False
    user: str = ""
    character: str = ""


class Replay(msgspec.Struct, frozen=True):
    """The request was answered already; this is the turn that holds its answer."""

    turn: Turn


class Answer(msgspec.Struct, frozen=True):
    """What a model said: the message, what surrounds it, and where its KV lies now."""

    message: Message | None
    reply: Reply
    binding: Binding | None = None
    status: Status = "complete"


class Dialogues:
    """All dialogues behind one store, under one set of rules."""

    def __init__(
        self, store: ConversationStore, keeper: LeaseKeeper, rules: DialogueRules, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._rules = rules
        self._clock = clock
        self._line = WaitingLine()

    async def open(self, key: ConversationKey, incoming: Incoming, ask: Ask) -> "OpenTurn | Replay":
        """Take the lease (waiting in line if need be) and lay out the prompt.

        Raises the `CallerFault` that fits, or `StoreUnavailable`; nothing is held then.
        """
        begun, waited = await self._claim(key, incoming, ask)
        try:
            if replay := _replay(begun.turns, ask):
                await self._store.release(key, begun.lease)
                self._line.wake(key)
                return replay
            if begun.is_new and ask.user:
                await self._store.register(key.tenant, ask.user, key)
            plan = await self._plan(key, begun, incoming, interrupted=waited and ask.on_busy == "restart")
            turn = await self._lay_out(key, begun, plan, incoming, ask)
        except BaseException:
            await self._store.release(key, begun.lease)
            self._line.wake(key)
            raise
        self._keeper.hold(key, begun.lease, ask.on_stop)
        return turn

    async def _claim(self, key: ConversationKey, incoming: Incoming, ask: Ask) -> tuple[Begun, bool]:
        """The lease, and whether somebody had to finish first."""
        claim = Claim(
            owner=ask.owner,
            lease_ms=int(self._rules.lease_s * 1000),
            queue_limit=0 if ask.on_busy == "reject" else self._rules.queue_limit,
            must_exist=ask.must_exist,
            interrupt=ask.on_busy == "restart",
            digest_turns=len(incoming.messages) if incoming.is_dialogue else 0,
        )
        give_up_at = self._clock() + self._rules.queue_wait_s
        waited = False
        try:
            async with self._line.arriving(key):
                got = await self._store.begin(key, claim)
            while isinstance(got, Busy):
                waited = True
                await self._wait(key, ask, got, give_up_at)
                got = await self._store.begin(key, claim)
        except (ConversationBusy, asyncio.CancelledError):
            await self._store.leave(key, ask.owner)
            raise
        if isinstance(got, Missing):
            raise ConversationNotFound(key.id)
        return got, waited

    async def _wait(self, key: ConversationKey, ask: Ask, busy: Busy, give_up_at: float) -> None:
        if busy.position < 0:
            reason = (
                "an answer is being written" if ask.on_busy == "reject" else "too many messages are waiting"
            )
            raise ConversationBusy(reason, retry_after_ms=max(100, busy.holder_expires_ms))
        if self._clock() >= give_up_at:
            raise ConversationBusy("waited too long for the answer before", retry_after_ms=1000)
        if ask.on_busy == "restart":
            self._keeper.interrupt(key)
        await self._line.wait(key, ask.owner, busy.position)

    async def _lay_out(
        self, key: ConversationKey, begun: Begun, plan: Plan, incoming: Incoming, ask: Ask
    ) -> "OpenTurn":
        conversation, rule = begun.conversation, self._rules.window
        cut = conversation.cut
        if plan.is_branch:
            cut = branch_cut(cut, plan.keep, rule)
        stored = begun.turns[: max(0, plan.keep - conversation.cut)]
        if cut < conversation.cut:
            stored = (*await self._store.read(key, cut, min(plan.keep, conversation.cut)), *stored)
        turns = (*stored, *plan.adopted)
        moved = advance(cut, _tokens(turns, rule), rule)
        persona = incoming.persona.json if incoming.persona else conversation.persona
        return OpenTurn(
            dialogues=self,
            key=key,
            lease=begun.lease,
            ask=ask,
            layout=Layout(
                conversation=conversation,
                plan=plan,
                cut=moved,
                persona=persona,
                turns=turns[moved - cut :],
                is_new=begun.is_new,
            ),
        )

    async def _plan(
        self, key: ConversationKey, begun: Begun, incoming: Incoming, *, interrupted: bool
    ) -> Plan:
        count, cut = begun.conversation.turn_count, begun.conversation.cut
        if not incoming.is_dialogue:
            last = begun.turns[-1] if begun.turns else None
            return plan_new(incoming, count, last, merge_incomplete=interrupted)
        loaded = {cut + at: turn for at, turn in enumerate(begun.turns)}
        digests = begun.digests
        try:
            plan = plan_dialogue(incoming, count, digests, loaded)
            settled = isinstance(plan, Plan) and not plan.is_branch
        except ConversationMismatch:
            if len(digests) == count:
                raise
            settled = False
        if not settled and len(digests) < count:
            digests = await self._store.digests(key)
            plan = plan_dialogue(incoming, count, digests, loaded)
        if isinstance(plan, NeedTurn):
            loaded[plan.index] = (await self._store.read(key, plan.index, plan.index + 1))[0]
            plan = plan_dialogue(incoming, count, digests, loaded)
        assert isinstance(plan, Plan)
        return plan

    async def commit(self, turn: "OpenTurn", change: Change) -> Conversation:
        """Write a turn and let the next one in. For `OpenTurn`."""
        # From here on the answer is whole: nobody may stop it any more, and the lease outlasts one call.
        self._keeper.drop(turn.lease.owner)
        try:
            return await self._store.commit(turn.key, turn.lease, change)
        finally:
            self._line.wake(turn.key)

    async def release(self, turn: "OpenTurn") -> None:
        """Let the next one in without writing. For `OpenTurn`."""
        self._keeper.drop(turn.lease.owner)
        try:
            await self._store.release(turn.key, turn.lease)
        finally:
            self._line.wake(turn.key)

    def now(self) -> float:
        """Unix seconds, by the clock these dialogues were given."""
        return self._clock()

    @property
    def window(self) -> WindowRule:
        """The rule that cuts are made by."""
        return self._rules.window


class Layout(msgspec.Struct, frozen=True):
    """What a prompt was made of, and what a commit needs of it."""

    conversation: Conversation
    plan: Plan
    cut: int
    persona: bytes
    turns: tuple[Turn, ...]
    is_new: bool

    def prompt(self) -> Prompt:
        """The messages for the engine."""
        return build(self.persona, self.turns, self.plan.draft.messages)


class OpenTurn:
    """A turn whose answer is being written. Ends by `commit` or `release`, exactly once."""

    def __init__(
        self, *, dialogues: Dialogues, key: ConversationKey, lease: Lease, ask: Ask, layout: Layout
    ) -> None:
        self._dialogues = dialogues
        self._ask = ask
        self.key = key
        self.lease = lease
        self.layout = layout
        self.prompt = layout.prompt()

    async def commit(self, answer: Answer) -> Conversation:
        """Store the turn with its answer. Raises `LeaseLost`, `ConversationErased`, `StoreUnavailable`."""
        return await self._dialogues.commit(self, self._change(answer))

    async def release(self) -> None:
        """Forget the turn: nothing is stored."""
        await self._dialogues.release(self)

    def exceeds_ceiling(self) -> bool:
        """Whether the ceiling showed fewer turns than `min_turns`."""
        rule = self._dialogues.window
        return exceeds_ceiling(_tokens(self.layout.turns, rule), rule)

    def _change(self, answer: Answer) -> Change:
        layout, ask, now = self.layout, self._ask, self._dialogues.now()
        turn = self._turn(answer, now)
        # A turn that waits for its tool's result is not complete, and does not push another one out.
        complete = layout.turns if turn.status == "open" else (*layout.turns, turn)
        rule = self._dialogues.window
        new_persona = layout.persona != layout.conversation.persona
        return Change(
            keep=layout.plan.keep,
            append=(*layout.plan.adopted, turn),
            at=now,
            save_branch=layout.plan.is_branch,
            cut=advance(layout.cut, _tokens(complete, rule), rule),
            persona=layout.persona if new_persona else None,
            new_epoch=new_persona and not layout.is_new,
            user=ask.user if layout.is_new else None,
            character=ask.character if layout.is_new else None,
            binding=answer.binding,
        )

    def _turn(self, answer: Answer, now: float) -> Turn:
        draft, spoken = self.layout.plan.draft, answer.message
        messages = draft.messages if spoken is None else (*draft.messages, spoken.json)
        waits_for_tool = spoken is not None and spoken.calls_tools and answer.status == "complete"
        return Turn(
            messages=messages,
            digests=draft.digests if spoken is None else draft.digests + spoken.digest,
            tokens=_share(answer.reply, draft, self.prompt.messages),
            at=now,
            status="open" if waits_for_tool else answer.status,
            idempotency_key=self._ask.idempotency_key,
            body_hash=self._ask.body_hash,
            reply=answer.reply,
        )


def _tokens(turns: Sequence[Turn], rule: WindowRule) -> list[int]:
    """What each turn costs; nobody counts where no ceiling asks."""
    return [token_estimate(turn) for turn in turns] if rule.max_tokens else [0] * len(turns)


def _share(reply: Reply, draft: Draft, prompt: Sequence[bytes]) -> int:
    """A turn's tokens: its share of the prompt by bytes, and its answer. 0 where no usage came."""
    size = sum(map(len, prompt))
    if not reply.prompt_tokens or not size:
        return 0
    return round(reply.prompt_tokens * sum(map(len, draft.messages)) / size) + reply.completion_tokens


def _replay(turns: Sequence[Turn], ask: Ask) -> Replay | None:
    """The stored turn that already answers this request: same key, or a retry of the last body."""
    if ask.idempotency_key:
        for turn in reversed(turns):
            if turn.idempotency_key == ask.idempotency_key and turn.status != "incomplete":
                return Replay(turn)
    if ask.is_retry and turns and turns[-1].body_hash == ask.body_hash and turns[-1].status != "incomplete":
        return Replay(turns[-1])
    return None
