"""Changes to a stored dialogue that no model answers: items appended, an older answer selected, turns copied.

The use case. Each change is one lease and one commit, as a turn is, and waits in the same line; the cut moves
by the same rules.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec.structs import replace

from history.beginning import Owner
from history.compaction import settled, shown, shows_at
from history.conversation import Conversation, ConversationKey, Lease, Turn
from history.dialogue import Dialogues
from history.grouping import Said, continues, turns_of
from history.items import fresh_mark
from history.lease_keeper import Stop
from history.message import Message
from history.open_turn import Ask, sizes_of
from history.ports import Begun, Change, ConversationStore
from history.rules import DialogueRules
from history.window import WindowRule, branch_cut

Plan = Callable[[Begun], Awaitable[Change | None]]
"""What is to be written, given what is there; None: nothing. A cut left out is set by the window's rule."""


class Edited(msgspec.Struct, frozen=True):
    """What came of a change: the conversation afterwards, and the change as it was written."""

    conversation: Conversation
    change: Change | None
    """None: there was nothing to change."""
    continued: int = 0
    """How many messages of its first turn were there before."""


class Editor:
    """Edits the dialogues of one store. `name`: a new name for each lease. `clock`: Unix seconds."""

    def __init__(
        self,
        dialogues: Dialogues,
        store: ConversationStore,
        rules: DialogueRules,
        clock: Callable[[], float],
        name: Callable[[], str],
    ) -> None:
        self._dialogues = dialogues
        self._store = store
        self._rules = rules
        self._clock = clock
        self._name = name

    def now(self) -> float:
        """Unix seconds."""
        return self._clock()

    async def edit(self, key: ConversationKey, plan: Plan, owner: Owner | None = None) -> Edited:
        """Write what `plan` says, under a lease. Without an owner the conversation has to exist.

        Raises `ConversationNotFound`, `ConversationBusy`, `ConversationErased`, `ConversationFull`,
        `QuotaExceeded`, `LeaseLost`, what `plan` raises, or `StoreUnavailable`; nothing is changed then.
        """
        begun = await self._dialogues.hold(key, self._ask(owner))
        try:
            planned = await plan(begun)
            if planned is None:
                await self._dialogues.release(key, begun.lease)
                return Edited(begun.conversation, None)
            if _grows(planned):
                self._dialogues.check_tenant(key)
            change = _signed(planned, begun.lease)
            if begun.is_new and owner is not None:
                change = replace(change, user=owner.user, character=owner.character)
            change = await self._placed(key, begun, _with_epoch(begun, change))
            return Edited(await self._dialogues.write(key, begun.lease, change), change)
        except BaseException:
            await self._dialogues.release(key, begun.lease)
            raise

    def window_of(self, conversation: Conversation) -> WindowRule:
        """The rule of its window."""
        return self._dialogues.growth.of(conversation)

    async def append(
        self,
        key: ConversationKey,
        said: Sequence[Message],
        *,
        persona: bytes | None = None,
        metadata: bytes | None = None,
        owner: Owner | None = None,
    ) -> Edited:
        """Add messages at the end, and a persona in the place of the one there is."""
        now, continued = self._clock(), 0

        async def plan(begun: Begun) -> Change:
            count = begun.conversation.turn_count
            last = await self._last(key, begun)
            head = last if said and continues(last, said[0]) else None
            nonlocal continued
            continued = len(head.messages) if head else 0
            groups = turns_of((Said(message, now) for message in said), head)
            return Change(
                keep=count - (head is not None),
                append=tuple(group.turn for group in groups),
                at=now,
                persona=persona,
                metadata=metadata,
            )

        edited = await self.edit(key, plan, owner)
        return replace(edited, continued=continued)

    async def _last(self, key: ConversationKey, begun: Begun) -> Turn | None:
        count = begun.conversation.turn_count
        turns = begun.turns or await self._store.read(key, count - 1, count) if count else ()
        return turns[-1] if turns else None

    async def _placed(self, key: ConversationKey, begun: Begun, change: Change) -> Change:
        """The change with the cut where the window's rule has it."""
        if change.cut is not None:
            return change
        before, compaction, growth = begun.conversation, self._rules.compaction, self._dialogues.growth
        window = growth.of(before)
        cut = branch_cut(before.cut, change.keep, window) if change.save_branch else before.cut
        cut = min(cut, change.keep)
        turns = begun.turns[: max(0, change.keep - before.cut)]
        if cut < before.cut:
            turns = (*await self._store.read(key, cut, min(change.keep, before.cut)), *turns)
        turns = (*turns, *change.append)
        if turns and turns[-1].status != "complete":
            turns = turns[:-1]
        memories = tuple(one for one in before.memories if one.covers_to <= change.keep)
        moved = settled(cut, sizes_of(turns, window), memories, window, compaction)
        shows = shows_at(moved, before.cut, before.shows, memories)
        return replace(
            change,
            cut=moved,
            grows_to=growth.begun(before, moved),
            shows=shows if shows != before.shows else None,
            shown=shown(memories, shows) if change.keep < before.turn_count else None,
        )

    def _ask(self, owner: Owner | None) -> Ask:
        return Ask(
            owner=self._name(),
            on_stop=_go_on,
            on_busy="reject" if self._rules.on_busy == "reject" else "queue",
            must_exist=owner is None,
            user=owner.user if owner else "",
        )


def _go_on(_: Stop) -> None:
    """An edit is over in no time."""


def _grows(change: Change) -> bool:
    """Whether it brings something new; taking an older answer back, for one, does not."""
    return bool(change.append or change.branches) and not change.into_branch


def _signed(change: Change, lease: Lease) -> Change:
    """The change, every turn of it with a mark."""
    marks = iter(range(1_000_000_000))

    def sign(turn: Turn) -> Turn:
        return turn if turn.mark else replace(turn, mark=fresh_mark(lease, next(marks)))

    return replace(
        change,
        append=tuple(sign(turn) for turn in change.append),
        branches=tuple((index, tuple(sign(turn) for turn in turns)) for index, turns in change.branches),
    )


def _with_epoch(begun: Begun, change: Change) -> Change:
    """Another persona than the one that is there begins a new epoch; the same one is no change."""
    if change.persona is None or change.persona == begun.conversation.persona:
        return replace(change, persona=None)
    return replace(change, new_epoch=not begun.is_new)
