"""One turn of a dialogue, from the messages that came in to the turn that is stored.

The use case of this package: `Dialogues.open` takes the lease and lays out the prompt, whoever called it
gets an answer from a model, `OpenTurn.commit` writes the turn. Two calls to the store, whatever the
dialogue's length.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

import msgspec

from history.allowance import Allowance
from history.compaction import Stretch, due, free, settled, shown, shows_at
from history.conversation import Binding, Conversation, ConversationKey, Lease, Memory, Turn
from history.errors import (
    ConversationBusy,
    ConversationErased,
    ConversationMismatch,
    ConversationNotFound,
    InvalidMessages,
)
from history.growth import Growth
from history.incoming import Incoming, NeedTurn, Plan, plan_anew, plan_dialogue, plan_new
from history.lease_keeper import LeaseKeeper
from history.limits import LimitRule
from history.memory import memory_size
from history.open_turn import Ask, Ended, Layout, OpenTurn, sizes_of
from history.ports import Begun, Busy, Change, Claim, ConversationStore, Missing
from history.prompt import Prompt, build
from history.recaller import Recaller
from history.residency import Ages, Residency
from history.rules import DialogueRules
from history.tail_maker import TailMaker
from history.waiting_line import WaitingLine
from history.window import WindowRule, branch_cut, within

_ANSWER_TOKENS = 1024
"""Left for an answer that may be as long as it wants."""
_INSTRUCTION_TOKENS = 400
_SURE = 0.9
"""Tokens are estimated by bytes where no engine has counted them."""

MAX_VERSIONS = 100
"""How many answers to one message are kept beside the active one."""

_NOTHING = Incoming(persona=None, messages=())


class Replay(msgspec.Struct, frozen=True):
    """The request was answered already; this is the turn that holds its answer."""

    turn: Turn


class Outlook(msgspec.Struct, frozen=True):
    """The part of the next prompt that is known before its message comes."""

    conversation: Conversation
    prompt: Prompt
    has_cut: bool
    """It begins otherwise than the last prompt did."""
    due: Stretch | None
    """The version of the memory that should be made now."""


class Dialogues:
    """All dialogues behind one store, under one set of rules.

    `growth`: how far windows grow, learned from all turns taken here. `residency`: whether KV is still there;
    without it, it always is.
    """

    def __init__(  # noqa: PLR0913 - the parts that it is put together of
        self,
        store: ConversationStore,
        keeper: LeaseKeeper,
        rules: DialogueRules,
        clock: Callable[[], float],
        *,
        growth: Growth | None = None,
        residency: Residency | None = None,
        recaller: Recaller | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._rules = rules
        self._clock = clock
        self.growth = growth or Growth(rules)
        self._residency = residency or Ages(math.inf, clock)
        self._line = WaitingLine()
        self._tails = TailMaker(recaller, rules, clock)
        self._allowance = allowance or Allowance(store, LimitRule())

    async def open(self, key: ConversationKey, incoming: Incoming, ask: Ask) -> OpenTurn | Replay:
        """Take the lease (waiting in line if need be) and lay out the prompt.

        Raises the `CallerFault` that fits, or `StoreUnavailable`; nothing is held then.
        """
        if not (ask.is_retry or ask.idempotency_key):  # what is stored already may be asked for again
            self.check_tenant(key, incoming)
        begun, waited = await self._claim(key, incoming, ask)
        try:
            if replay := _replay(begun.turns, ask):
                await self._store.release(key, begun.lease)
                self._line.wake(key)
                return replay
            self.check_tenant(key, incoming)
            await self._register(key, begun, ask)
            interrupted = waited and ask.on_busy == "restart"
            plan = await self._plan(key, begun, incoming, ask, interrupted=interrupted)
            self._allowance.check_room(begun.conversation, plan.growth(begun.conversation.turn_count))
            layout = await self._lay_out(key, begun, plan, incoming, ask)
        except BaseException:
            await self._store.release(key, begun.lease)
            self._line.wake(key)
            raise
        self._keeper.hold(key, begun.lease, ask.on_stop)
        self._saw_pause(begun.conversation)
        return OpenTurn(self, self._rules, self._clock, key=key, lease=begun.lease, layout=layout)

    def _saw_pause(self, conversation: Conversation) -> None:
        if conversation.binding is not None:
            self.growth.paused(self._clock() - conversation.binding.at)
        if self.growth.is_due():
            self.growth.find(self._residency.retained())

    def check_tenant(self, key: ConversationKey, incoming: Incoming = _NOTHING) -> None:
        """Raise `QuotaExceeded` if a tenant may store nothing new; a turn that was begun may end."""
        if not incoming.answers_tool:
            self._allowance.check(key.tenant)

    async def hold(self, key: ConversationKey, ask: Ask) -> Begun:
        """Take the lease as `open` does, for a change that no model answers; `write` or `release` ends it."""
        begun, _ = await self._claim(key, _NOTHING, ask)
        try:
            await self._register(key, begun, ask)
        except BaseException:
            await self.release(key, begun.lease)
            raise
        return begun

    async def _register(self, key: ConversationKey, begun: Begun, ask: Ask) -> None:
        """Put a new conversation into its user's index, under its lease: an erasure finds either of them."""
        if not begun.is_new or not ask.user:
            return
        try:
            await self._store.register(key.tenant, ask.user, key)
        except ConversationErased:
            await self._store.erase(key)
            raise

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
    ) -> Layout:
        conversation = begun.conversation
        persona = incoming.persona.json if incoming.persona else conversation.persona
        window = self._window(ask, conversation, (persona, *plan.draft.messages))
        cut = branch_cut(conversation.cut, plan.keep, window) if plan.is_branch else conversation.cut
        stored = begun.turns[: max(0, plan.keep - conversation.cut)]
        if cut < conversation.cut:
            stored = (*await self._store.read(key, cut, min(plan.keep, conversation.cut)), *stored)
        turns = (*stored, *plan.adopted)
        memories = tuple(one for one in conversation.memories if one.covers_to <= plan.keep)
        sizes = sizes_of(turns, window)
        moved = self._moved(conversation, cut, sizes, memories, window)
        last_at = turns[-1].at if turns else 0.0
        return Layout(
            ask=ask,
            window=window,
            conversation=conversation,
            plan=plan,
            cut=moved,
            shows=shows_at(moved, conversation.cut, conversation.shows, memories),
            persona=persona,
            turns=turns[moved - cut :],
            sizes=tuple(sizes[moved - cut :]),
            memories=memories,
            is_new=begun.is_new,
            replaces=_at(begun, plan.keep),
            tail=await self._tails.make(key, conversation, plan, ask, cut=moved, last_at=last_at),
        )

    def _window(self, ask: Ask, conversation: Conversation, said: Sequence[bytes]) -> WindowRule:
        """The window's rule, within what the model's context leaves beside all else and an answer."""
        rule = self.growth.of(conversation)
        if not ask.room:
            return rule
        fixed = sum(map(len, said)) + max((memory_size(one) for one in conversation.memories), default=0)
        answer = ask.answer_tokens or min(_ANSWER_TOKENS, ask.room // 4)
        if self._rules.compaction.enabled:
            # The call that makes the memory has the same prompt, an instruction and an answer of its own.
            answer = max(answer, self._rules.compaction.max_tokens + _INSTRUCTION_TOKENS)
        recalled = self._rules.recall.max_tokens if self._rules.recall.enabled else 0
        return within(rule, int(_SURE * (ask.room - answer - recalled - fixed // 4)))

    def _moved(
        self,
        conversation: Conversation,
        cut: int,
        sizes: Sequence[int],
        memories: Sequence[Memory],
        window: WindowRule,
    ) -> int:
        """Where the cut lies for the next prompt, with turns of these sizes behind it."""
        compaction = self._rules.compaction
        moved = settled(cut, sizes, memories, window, compaction)
        binding = conversation.binding
        if binding is None or not self._residency.is_gone(binding):
            return moved
        return free(moved, cut + len(sizes) - moved, memories, window, compaction)

    async def _plan(
        self, key: ConversationKey, begun: Begun, incoming: Incoming, ask: Ask, *, interrupted: bool
    ) -> Plan:
        count, cut = begun.conversation.turn_count, begun.conversation.cut
        if incoming.regenerates:
            return await self._plan_anew(key, count, begun.turns)
        if not incoming.is_dialogue:
            last = begun.turns[-1] if begun.turns else None
            if last is not None and _is_repeated(last, ask):
                return plan_anew(count, last)
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

    async def _plan_anew(self, key: ConversationKey, count: int, window: Sequence[Turn]) -> Plan:
        turns = window[-1:] or await self._store.read(key, count - 1, count)
        if not turns:
            raise InvalidMessages("this conversation has no message to be answered", param="conversation")
        if len(await self._store.branches_at(key, count - 1)) >= MAX_VERSIONS:
            reason = f"this message has {MAX_VERSIONS} answers already; select one, or send another message"
            raise InvalidMessages(reason, param="conversation")
        return plan_anew(count, turns[-1])

    async def outlook(self, key: ConversationKey) -> Outlook | None:
        """What the next prompt will begin with; None where nothing is remembered or a tool is waited for.

        Two calls to the store and no lease: it may be overtaken by a turn, which harms nobody.
        """
        conversation = await self._store.load(key)
        if conversation is None:
            return None
        turns = await self._store.read(key, conversation.cut, conversation.turn_count)
        if not turns or turns[-1].status == "open":
            return None
        self._tails.warm(key, conversation)
        window = self.growth.of(conversation)
        sizes = sizes_of(turns, window)
        # Nothing is cut for free here: what is warmed is there, so the next prompt will not be cut either.
        cut = settled(conversation.cut, sizes, conversation.memories, window, self._rules.compaction)
        shows = shows_at(cut, conversation.cut, conversation.shows, conversation.memories)
        left = cut - conversation.cut
        return Outlook(
            conversation=conversation,
            prompt=build(
                conversation.persona, shown(conversation.memories, shows), turns[left:], (), cut=cut
            ),
            has_cut=left > 0,
            due=due(cut, sizes[left:], conversation.memories, window, self._rules.compaction),
        )

    def left(self, ended: Ended) -> None:
        """Let recall know of the turns that left the window."""
        start = ended.conversation.cut - len(ended.left)
        self._tails.left(ended.key, ended.conversation, ended.left, start=start)

    async def rebind(self, key: ConversationKey, binding: Binding, known: Conversation) -> None:
        """The KV of what is known of the next prompt lies there now, unless a turn was written meanwhile."""
        await self._store.rebind(key, binding, turn_count=known.turn_count)

    async def write(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        """Write a turn and let the next one in. For `OpenTurn`."""
        # From here on the answer is whole: nobody may stop it any more, and the lease outlasts one call.
        self._keeper.drop(lease.owner)
        try:
            return await self._store.commit(key, lease, change)
        except ConversationErased:
            if change.user:
                # It was in its user's index before it was anywhere else.
                await self._store.unregister(key.tenant, change.user, key)
            raise
        finally:
            self._line.wake(key)

    async def release(self, key: ConversationKey, lease: Lease) -> None:
        """Let the next one in without writing. For `OpenTurn`."""
        self._keeper.drop(lease.owner)
        try:
            await self._store.release(key, lease)
        finally:
            self._line.wake(key)


def _at(begun: Begun, index: int) -> Turn | None:
    """That turn, if it is one of the window's."""
    at = index - begun.conversation.cut
    return begun.turns[at] if 0 <= at < len(begun.turns) else None


def _is_repeated(last: Turn, ask: Ask) -> bool:
    """Whether a turn that was broken off is asked for again: it is answered anew, not said twice."""
    if last.status != "incomplete":
        return False
    if ask.idempotency_key and last.idempotency_key == ask.idempotency_key:
        return True
    return ask.is_retry and last.body_hash == ask.body_hash


def _replay(turns: Sequence[Turn], ask: Ask) -> Replay | None:
    """The stored turn that already answers this request: same key, or a retry of the last body."""
    if ask.idempotency_key:
        for turn in reversed(turns):
            if turn.idempotency_key == ask.idempotency_key and turn.status != "incomplete":
                return Replay(turn)
    if ask.is_retry and turns and turns[-1].body_hash == ask.body_hash and turns[-1].status != "incomplete":
        return Replay(turns[-1])
    return None
