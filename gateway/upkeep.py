"""What a conversation needs between its turns: its memory made, its next prefix warmed, its past archived
and given vectors.

A bounded queue with a few workers, never in front of a user. Nothing here has to survive: what is dropped,
fails or dies with the process is due again after the conversation's next turn.
"""

import asyncio
from collections import OrderedDict
from itertools import islice

import msgspec
import structlog

from gateway.background import Background, Delivered, Order
from gateway.errors import GatewayError
from gateway.frame import frame_of
from gateway.recent import Recent, Seen
from gateway.request import ChatRequest
from gateway.routing.node import Node
from gateway.upkeep_rules import UpkeepRules
from history.archivist import Archivist
from history.compaction import CompactionRule, Stretch
from history.compactor import Compactor, Outcome
from history.conversation import Conversation, ConversationKey
from history.dialogue import Dialogues, Outlook
from history.embedding import Embedding
from history.errors import HistoryError
from history.open_turn import Ended
from history.prompt import Prompt

log = structlog.get_logger()

_IDLE_POLL_S = 0.05
_CROWD = 4
_LONGEST_PAUSE = 32
_PAUSES_KEPT = 10_000


class _Errand(msgspec.Struct):
    """What one conversation needs. Requests are kept without their messages."""

    frame: ChatRequest
    turn_count: int
    """Of the turn that left it to be done."""
    due: Stretch | None = None
    warm: bool = False
    archive: bool = False
    embed: bool = False

    def is_nothing(self) -> bool:
        return self.due is None and not self.warm and not self.archive and not self.embed

    def with_rest_of(self, other: "_Errand") -> None:
        """Take over what an errand that still waits was to do."""
        self.due = self.due or other.due
        self.warm = self.warm or other.warm
        self.archive = self.archive or other.archive
        self.embed = self.embed or other.embed


class Upkeep:
    """Runs errands for conversations; `run` has to be a task of the process's task group."""

    def __init__(  # noqa: PLR0913 - the parts that it is put together of
        self,
        *,
        dialogues: Dialogues,
        compactor: Compactor,
        background: Background,
        archivist: Archivist | None,
        embedding: Embedding | None,
        rules: UpkeepRules,
        compaction: CompactionRule,
    ) -> None:
        self._dialogues = dialogues
        self._compactor = compactor
        self._background = background
        self._archivist = archivist
        self._embedding = embedding
        self._rules = rules
        self._compaction = compaction
        self._errands: dict[ConversationKey, _Errand] = {}
        self._queue: asyncio.Queue[ConversationKey] = asyncio.Queue()
        self._busy: set[ConversationKey] = set()
        self._patience = Patience()
        self._embedding_patience = Patience()
        self._recent = Recent()
        self._events = background.telemetry.events

    def after(self, ended: Ended, request: ChatRequest) -> None:
        """Note what a stored turn leaves to be done. Never waits."""
        self._dialogues.left(ended)
        frame, binding = frame_of(request), ended.conversation.binding
        version = binding.version if binding is not None else ""
        if binding is not None:
            now = self._background.clock.steady()
            self._recent.note(ended.key, Seen(frame=frame, node=binding.node, at=now, version=version))
        errand = _Errand(
            frame=frame,
            turn_count=ended.conversation.turn_count,
            due=ended.due,
            warm=(ended.has_cut and self._rules.prewarm)
            or self._background.versions.is_misplaced(request.model, version),
            archive=self._archivist is not None and self._archivist.is_due(ended.conversation),
        )
        if not self._patience.allows(ended.key, errand.turn_count):
            errand.due = None
        if self._embedding is not None and self._embedding_patience.allows(ended.key, errand.turn_count):
            errand.embed = bool(ended.left) or self._embedding_patience.has_failed(ended.key)
        self._put(ended.key, errand)

    def lost(self, node: str) -> None:
        """A node went away or drains: warm what it held elsewhere, what spoke last first, and not too much.

        Conversations that do not come back cost nothing: only those that spoke lately are warmed.
        """
        since = self._background.clock.steady() - self._rules.rewarm_within_s
        for key, seen in islice(self._recent.on(node, since=since), self._rules.rewarm):
            self._put(key, _Errand(frame=seen.frame, turn_count=0, warm=True))
            self._events["rewarm"] += 1

    def moved(self, model: str) -> None:
        """Versions of a model are others now: warm what spoke lately for the version that it goes to."""
        since = self._background.clock.steady() - self._rules.rewarm_within_s
        misplaced = self._background.versions.is_misplaced
        lately = (one for one in self._recent.of(model, since=since) if misplaced(model, one[1].version))
        for key, seen in islice(lately, self._rules.rewarm):
            self._put(key, _Errand(frame=seen.frame, turn_count=0, warm=True))
            self._events["version_moves"] += 1

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._rules.workers):
                tasks.create_task(self._work())

    async def warm(self, key: ConversationKey, request: ChatRequest) -> Delivered | None:
        """Make the beginning of the conversation's next prompt resident, now; None if there is nothing.

        Raises a `GatewayError` where no node can, `StoreFault` where the store cannot.
        """
        outlook = await self._dialogues.outlook(key)
        if outlook is None:
            return None
        return await self._warmed(key, outlook, frame_of(request))

    async def compact(self, key: ConversationKey, request: ChatRequest) -> Outcome | None:
        """Make the version of the memory that is due, now; None if none is.

        What else it leaves to be done is done in the background. Raises as `warm` does.
        """
        outlook = await self._dialogues.outlook(key)
        if outlook is None or outlook.due is None:
            return None
        errand = _Errand(frame=frame_of(request), turn_count=outlook.conversation.turn_count)
        outcome = await self._compact(key, errand, outlook.due)
        self._put(key, errand)
        return outcome

    def _put(self, key: ConversationKey, errand: _Errand) -> None:
        if errand.is_nothing():
            return
        waiting = self._errands.get(key)
        if waiting is not None:
            errand.with_rest_of(waiting)
        elif len(self._errands) >= self._rules.queue_limit:
            self._events["upkeep_dropped"] += 1
            return
        elif key not in self._busy:
            self._queue.put_nowait(key)
        self._errands[key] = errand

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            errand = self._errands.pop(key)
            self._busy.add(key)
            try:
                await self._run(key, errand)
            except Exception as fault:
                # A mistake of ours, too, costs this conversation its upkeep, not everybody their answers.
                is_known = isinstance(fault, GatewayError | HistoryError)
                self._events["upkeep_failed"] += 1
                self._patience.failed(key, errand.turn_count)
                log.warning("upkeep failed", fault=type(fault).__name__, exc_info=not is_known)
            finally:
                self._busy.discard(key)
                if key in self._errands:
                    self._queue.put_nowait(key)

    async def _run(self, key: ConversationKey, errand: _Errand) -> None:
        if errand.archive and self._archivist is not None:
            self._events["archived_turns"] += await self._archivist.tend(key)
        if errand.due is not None:
            await self._compact(key, errand, errand.due)
        if errand.warm:
            await self._prewarm(key, errand)
        if errand.embed and self._embedding is not None:
            await self._embed(self._embedding, key, errand)

    async def _embed(self, embedding: Embedding, key: ConversationKey, errand: _Errand) -> None:
        """Make vectors of the turns that left; where no node does, try again some turns later."""
        try:
            made, is_more = await embedding.tend(key)
        except GatewayError as fault:
            self._events["embedding_failed"] += 1
            self._embedding_patience.failed(key, errand.turn_count)
            log.warning("turns got no vectors", fault=type(fault).__name__)
            return
        self._events["embedded_turns"] += made
        self._embedding_patience.forget(key)
        if is_more:
            self._put(key, _Errand(frame=errand.frame, turn_count=errand.turn_count, embed=True))

    async def _prewarm(self, key: ConversationKey, errand: _Errand) -> None:
        before = await self._dialogues.outlook(key)
        if before is None:
            return
        node = self._node_of(before.conversation)
        if node is not None and not await self._is_idle(node) and (node.waiting or 0) > _CROWD:
            self._events["warm_left_out"] += 1
            return
        # The prefix has to be computed in any case, so a node that is never idle does it as well now as
        # later; only a turn that came meanwhile has done it already.
        now = await self._dialogues.outlook(key)
        if now is None or now.conversation.turn_count != before.conversation.turn_count:
            self._events["warm_overtaken"] += 1
            return
        await self._warmed(key, now, errand.frame)
        self._events["warm"] += 1

    async def _warmed(self, key: ConversationKey, outlook: Outlook, frame: ChatRequest) -> Delivered:
        order = Order(
            key=key,
            conversation=outlook.conversation,
            frame=frame,
            prompt=outlook.prompt,
            purpose="warm",
            max_tokens=1,
        )
        delivered = await self._background.deliver(order)
        await self._dialogues.rebind(key, delivered.binding, outlook.conversation)
        return delivered

    async def _compact(self, key: ConversationKey, errand: _Errand, due: Stretch) -> Outcome:
        async def scribe(conversation: Conversation, prompt: Prompt) -> str:
            if (node := self._node_of(conversation)) is not None:
                await self._is_idle(node)
            order = Order(
                key=key,
                conversation=conversation,
                frame=errand.frame,
                prompt=prompt,
                purpose="compaction",
                max_tokens=self._compaction.max_tokens,
                model=self._compaction.model,
            )
            said = (await self._background.deliver(order)).said
            return str(said.message.get("content") or "")

        outcome = await self._compactor.compact(key, due, scribe)
        self._events[f"compaction_{outcome}"] += 1
        if outcome != "kept":
            self._patience.failed(key, errand.turn_count)
            return outcome
        self._patience.forget(key)
        outlook = await self._dialogues.outlook(key)
        if outlook is None:
            return outcome
        # A version that came late moves the next prompt's cut; those that lag behind are caught up with.
        errand.warm = errand.warm or (outlook.has_cut and self._rules.prewarm)
        if outlook.due is not None:
            self._put(key, _Errand(frame=errand.frame, turn_count=errand.turn_count, due=outlook.due))
        return outcome

    def _node_of(self, conversation: Conversation) -> Node | None:
        """The node that has the conversation's KV."""
        name = conversation.binding.node if conversation.binding else ""
        router = self._background.router
        return router.node(name) if router.has(name) else None

    async def _is_idle(self, node: Node) -> bool:
        """Wait a while for a node to have nothing else to do; whether it has."""
        waited = 0.0
        while node.is_busy():
            if waited >= self._rules.idle_wait_s:
                return False
            await asyncio.sleep(_IDLE_POLL_S)
            waited += _IDLE_POLL_S
        return True


class Patience:
    """Leaves a conversation alone for 1, 2, 4 … 32 turns after each call in a row that came to nothing."""

    def __init__(self) -> None:
        self._waits: OrderedDict[ConversationKey, tuple[int, int]] = OrderedDict()

    def allows(self, key: ConversationKey, turn_count: int) -> bool:
        """Whether it may be tried again at this turn."""
        return turn_count >= self._waits.get(key, (0, 0))[0]

    def failed(self, key: ConversationKey, turn_count: int) -> None:
        """Wait twice as long as the last time."""
        step = min(_LONGEST_PAUSE, 2 * self._waits.pop(key, (0, 0))[1] or 1)
        self._waits[key] = (turn_count + step, step)
        if len(self._waits) > _PAUSES_KEPT:
            self._waits.popitem(last=False)

    def has_failed(self, key: ConversationKey) -> bool:
        """Whether the last call came to nothing."""
        return key in self._waits

    def forget(self, key: ConversationKey) -> None:
        """It worked."""
        self._waits.pop(key, None)
