"""One of two stores that get the same commands, with the use cases that write to it."""

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from msgspec.structs import replace

from history.beginning import Owner
from history.compaction import CompactionRule
from history.conversation import Conversation, ConversationKey
from history.dialogue import Dialogues
from history.editing import Edited, Editor
from history.forking import Forks, Until
from history.lease_keeper import LeaseKeeper
from history.ports import Begun, Change, Claim, ConversationStore
from history.rules import DialogueRules
from history.siblings import select
from history.window import WindowSetting
from tests.contract.store_commands import LEASE_MS
from tests.contract.store_stage import turn

NOW = 3.5
RULES = DialogueRules(
    window=WindowSetting(min_turns=2, max_turns=4),
    compaction=CompactionRule(lead_turns=1),
    on_busy="reject",
    lease_s=LEASE_MS / 1000,
)

Act = Callable[[], Awaitable[object]]


class Meddled:
    """A store before whose so-manieth call something else happens to it."""

    def __init__(self, store: ConversationStore, at_call: int, act: Act) -> None:
        self._store = store
        self._left = at_call
        self._act = act

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                await self._act()
            return await getattr(self._store, name)(*arguments, **more)

        return call


@dataclass
class Side:
    """A store, and whoever edits and forks in it; leases have the same names on either side."""

    store: ConversationStore
    pass_ms: Callable[[int], Awaitable[None]]
    """Let all conversations get older."""
    names: Iterator[int] = field(default_factory=itertools.count)

    def editor(self, store: ConversationStore | None = None) -> Editor:
        over = store or self.store
        dialogues = Dialogues(over, LeaseKeeper(over, clock=lambda: 0.0), RULES, lambda: 0.0)
        return Editor(dialogues, over, RULES, lambda: NOW, lambda: f"editor {next(self.names)}")

    async def append(self, key: ConversationKey, texts: Sequence[str]) -> Edited:
        """Turns at the end, the cut by the window's rule; the conversation begins with them if need be."""

        async def plan(begun: Begun) -> Change:
            count = begun.conversation.turn_count
            return Change(keep=count, append=tuple(turn(text) for text in texts), at=NOW)

        return await self.editor().edit(key, plan, Owner(user="u"))

    async def edit(self, key: ConversationKey, back: int, texts: Sequence[str]) -> Edited:
        """Other turns in the place of the last `back`; those are kept as a branch."""

        async def plan(begun: Begun) -> Change:
            keep = max(0, begun.conversation.turn_count - max(0, back))
            append = tuple(turn(text) for text in texts)
            return Change(keep=keep, append=append, at=NOW, save_branch=True)

        return await self.editor().edit(key, plan)

    async def select(self, key: ConversationKey, index: int, number: int) -> Edited:
        return await select(self.editor(), self.store, key, index=max(0, index), number=number)

    async def fork(
        self, key: ConversationKey, new: ConversationKey, until: int | None, meddling: tuple[int, Act] | None
    ) -> Conversation:
        """A copy; `meddling`: before which call of it something happens, and what."""
        store = self.store
        if meddling is not None:
            store = cast("ConversationStore", Meddled(self.store, *meddling))
        forks = Forks(self.editor(store), store)
        return await forks.fork(key, new, None if until is None else Until(until), None)

    async def write(self, key: ConversationKey, change: Change) -> None:
        """A turn of somebody else, unless somebody else is writing."""
        claim = Claim(owner=f"other {next(self.names)}", lease_ms=LEASE_MS, queue_limit=0)
        begun = await self.store.begin(key, claim)
        if isinstance(begun, Begun):
            await self.store.commit(key, begun.lease, fitted(change, begun.conversation.turn_count))


def fitted(change: Change, count: int) -> Change:
    """The change as one that a conversation of so many turns allows: it keeps nearly all of them."""
    keep = max(0, count - max(0, change.keep - 2))
    cut = None if change.cut is None else min(max(0, change.cut), keep + len(change.append))
    return replace(change, keep=keep, cut=cut)
