"""A turn whose answer is being written: its prompt, and the change to the store once there is an answer."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from history.compaction import Stretch, due, settled, shown, shows_at
from history.conversation import (
    Binding,
    Conversation,
    ConversationKey,
    Lease,
    Memory,
    Reply,
    Status,
    Tailed,
    Turn,
    token_estimate,
)
from history.growth import Growth, Sizes
from history.incoming import Plan
from history.items import fresh_mark
from history.kept_tail import shown_messages
from history.lease_keeper import Stop
from history.memory import memory_size
from history.message import Message, calls_tools
from history.passage import tokens_of
from history.ports import Change
from history.prompt import Prompt, build
from history.rules import DialogueRules, OnBusy
from history.tail import keeps_tail, with_tail
from history.window import WindowRule, exceeds_ceiling

_BYTES_A_TOKEN = 4


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
    room: int = 0
    """Tokens that prompt and answer may have together; 0: not known."""
    answer_tokens: int = 0
    """How long the answer may be; 0: not said."""
    note: str = ""
    """What the client wants said behind the message, for this turn."""
    lore: tuple[str, ...] = ()
    """What it wants known behind the message, for this turn."""


class Answer(msgspec.Struct, frozen=True):
    """What a model said: the message, what surrounds it, and where its KV lies now."""

    message: Message | None
    reply: Reply
    binding: Binding | None = None
    status: Status = "complete"


class Ended(msgspec.Struct, frozen=True):
    """A turn that was stored, and what it leaves to be done in the background."""

    key: ConversationKey
    conversation: Conversation
    left: tuple[Turn, ...]
    """The turns that left the window with it."""
    due: Stretch | None
    """The version of the memory that should be made now."""
    has_cut: bool
    """The next prompt begins otherwise than this one did."""


class Layout(msgspec.Struct, frozen=True):
    """What a prompt was made of, and what a commit needs of it."""

    ask: Ask
    window: WindowRule
    """The rule for this turn: what the model's context leaves is a ceiling, too."""
    conversation: Conversation
    plan: Plan
    cut: int
    shows: int
    persona: bytes
    turns: tuple[Turn, ...]
    sizes: tuple[int, ...]
    """What each of them costs; zeros where no ceiling asks."""
    memories: tuple[Memory, ...]
    is_new: bool
    tail: str = ""
    """What stands behind the user's message in this prompt."""
    replaces: Turn | None = None
    """The turn that goes on or is answered anew, where it stands in the window."""

    def prompt(self, said: Sequence[bytes]) -> Prompt:
        """The messages for the engine; `said`: the new ones."""
        return build(self.persona, shown(self.memories, self.shows), self.turns, said, cut=self.cut)

    def tailed(self) -> Tailed | None:
        """Where a tail stands in `said`."""
        draft = self.plan.draft
        if self.tail:
            return Tailed(len(draft.messages) - 1, len(self.tail), self.cut)
        return draft.tailed if draft.tailed is not None and draft.tailed.cut == self.cut else None

    def said(self) -> tuple[bytes, ...]:
        """The messages that are new, as the engine gets them."""
        messages = self.without_tail()
        return (*messages[:-1], with_tail(messages[-1], self.tail)) if self.tail else messages

    def without_tail(self) -> tuple[bytes, ...]:
        """The messages that are new, as later prompts show them if the tail is dropped."""
        draft = self.plan.draft
        return tuple(shown_messages(draft.messages, draft.tailed, self.cut))


class Writer(Protocol):
    """Who puts turns into the store, lets the next writer in, and learns from them."""

    growth: Growth

    async def write(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        """Write a turn."""

    async def release(self, key: ConversationKey, lease: Lease) -> None:
        """Write nothing."""


class OpenTurn:
    """A turn whose answer is being written. Ends by `commit` or `release`, exactly once."""

    def __init__(
        self,
        writer: Writer,
        rules: DialogueRules,
        clock: Callable[[], float],
        *,
        key: ConversationKey,
        lease: Lease,
        layout: Layout,
    ) -> None:
        self._writer = writer
        self._rules = rules
        self._clock = clock
        self._growth = writer.growth
        self.key = key
        self.lease = lease
        self.layout = layout
        self._said = layout.said()
        self.prompt = layout.prompt(self._said)

    def continues(self, message: Message | None, completion_tokens: int) -> bool:
        """Whether the next prompt has this turn as the engine saw it: its tail stays, or there is none.

        A tail goes where reading it in every prompt before the next cut would cost more than computing the
        answer once again.
        """
        if not self.layout.tail or (message is not None and message.calls_tools):
            return True
        left = self.layout.window.max_turns - len(self.layout.turns)
        size = tokens_of(self.layout.tail)
        return keeps_tail(size, completion_tokens, left, self._rules.tail.cached_price)

    async def commit(self, answer: Answer) -> Ended:
        """Store the turn with its answer. Raises `LeaseLost`, `ConversationErased`, `StoreUnavailable`."""
        window, compaction = self.layout.window, self._rules.compaction
        turn = self._turn(answer)
        # A turn that waits for its tool's result is not complete, and does not push another one out.
        more = () if turn.status == "open" else (turn,)
        complete, sizes = (*self.layout.turns, *more), (*self.layout.sizes, *sizes_of(more, window))
        cut = settled(self.layout.cut, sizes, self.layout.memories, window, compaction)
        change = self._change(turn, cut, answer.binding)
        after = await self._writer.write(self.key, self.lease, change)
        self._growth.took(self._seen(turn, answer.reply))
        left = sizes[max(0, after.cut - self.layout.cut) :]
        return Ended(
            key=self.key,
            conversation=after,
            left=complete[: max(0, after.cut - self.layout.cut)],
            due=due(after.cut, left, after.memories, window, compaction),
            has_cut=after.cut != self.layout.cut,
        )

    async def release(self) -> None:
        """Forget the turn: nothing is stored."""
        await self._writer.release(self.key, self.lease)

    def exceeds_ceiling(self) -> bool:
        """Whether the ceiling showed fewer turns than `min_turns`."""
        return exceeds_ceiling(self.layout.sizes, self.layout.window)

    def _change(self, turn: Turn, cut: int, binding: Binding | None) -> Change:
        layout, ask = self.layout, self.layout.ask
        shows = shows_at(cut, layout.cut, layout.shows, layout.memories)
        new_persona = layout.persona != layout.conversation.persona
        return Change(
            keep=layout.plan.keep,
            append=(*self._adopted(), turn),
            at=turn.at,
            save_branch=layout.plan.is_branch,
            cut=cut,
            shown=shown(layout.memories, shows) if layout.plan.is_branch else None,
            shows=shows if shows != layout.conversation.shows else None,
            grows_to=self._growth.begun(layout.conversation, cut),
            persona=layout.persona if new_persona else None,
            new_epoch=new_persona and not layout.is_new,
            user=ask.user if layout.is_new else None,
            character=ask.character if layout.is_new else None,
            binding=binding,
        )

    def _seen(self, turn: Turn, reply: Reply) -> Sizes:
        layout = self.layout
        memory = shown(layout.memories, layout.shows)
        return Sizes(
            prompt=reply.prompt_tokens,
            turn=turn.tokens,
            answer=reply.completion_tokens,
            memory=memory_size(memory) / _BYTES_A_TOKEN if memory is not None else 0.0,
            persona=len(layout.persona) / _BYTES_A_TOKEN,
            shown=len(layout.turns),
        )

    def _adopted(self) -> Iterator[Turn]:
        for position, turn in enumerate(self.layout.plan.adopted):
            yield msgspec.structs.replace(turn, mark=turn.mark or fresh_mark(self.lease, position))

    def _turn(self, answer: Answer) -> Turn:
        draft, spoken = self.layout.plan.draft, answer.message
        stays = self.continues(spoken, answer.reply.completion_tokens)
        said = self._said if stays else draft.messages
        messages = said if spoken is None else (*said, spoken.json)
        calls = spoken.calls_tools if spoken is not None else any(map(calls_tools, draft.messages[-1:]))
        waits_for_tool = calls and answer.status == "complete"
        return Turn(
            messages=messages,
            digests=draft.digests if spoken is None else draft.digests + spoken.digest,
            tokens=_share(answer.reply, said, self.prompt.messages),
            at=self._clock(),
            status="open" if waits_for_tool else answer.status,
            idempotency_key=self.layout.ask.idempotency_key,
            body_hash=self.layout.ask.body_hash,
            reply=answer.reply,
            mark=draft.mark or fresh_mark(self.lease, len(self.layout.plan.adopted)),
            tailed=self.layout.tailed() if stays else draft.tailed,
        )


def sizes_of(turns: Sequence[Turn], rule: WindowRule) -> list[int]:
    """What each turn costs; nobody counts where no ceiling asks."""
    return [token_estimate(turn) for turn in turns] if rule.max_tokens else [0] * len(turns)


def _share(reply: Reply, said: Sequence[bytes], prompt: Sequence[bytes]) -> int:
    """A turn's tokens: its share of the prompt by bytes, and its answer. 0 where no usage came."""
    size = sum(map(len, prompt))
    if not reply.prompt_tokens or not size:
        return 0
    return round(reply.prompt_tokens * sum(map(len, said)) / size) + reply.completion_tokens
