"""A conversation copied, as far as one of its turns or items, into a new one. The use case.

The copy begins with the same bytes and shows the same memory, so its next prompt finds the KV of the one it
comes from. It works at any length, in chunks; branches and ratings stay where they are.
"""

import contextlib

import msgspec

from history.beginning import Beginning, Owner
from history.compaction import shows_at
from history.conversation import Conversation, ConversationKey, Turn
from history.editing import Editor
from history.errors import ConversationBusy, ConversationNotFound, StoreFault
from history.grouping import Grouped
from history.growing import Growing
from history.items import Item, items_of, up_to
from history.pages import pages
from history.ports import ConversationStore
from history.window import branch_cut

_DIGESTS = 5_000


class Until(msgspec.Struct, frozen=True):
    """Where a copy ends: behind turn `turn`, or inside it, behind `item`."""

    turn: int
    item: Item | None = None


class Forks:
    """Copies the conversations of one store."""

    def __init__(self, editor: Editor, store: ConversationStore) -> None:
        self._editor = editor
        self._store = store

    async def fork(
        self, key: ConversationKey, new: ConversationKey, until: Until | None, metadata: bytes | None
    ) -> Conversation:
        """Copy the conversation to `new`, which nobody may know yet; without metadata, its own.

        Raises `ConversationNotFound` if it is not there any more, `ConversationBusy` if turns of it were
        replaced meanwhile, `StoreUnavailable`; nothing of the copy stays then.
        """
        source = await self._store.load(key)
        if source is None:
            raise ConversationNotFound(key.id)
        beginning = Beginning(
            owner=Owner(user=source.user, character=source.character),
            persona=source.persona,
            metadata=source.metadata if metadata is None else metadata,
        )
        growing = Growing(self._editor, self._store, new, beginning)
        try:
            await self._copy(key, source, growing, until)
            await self._check(key, new, growing.count - (until is not None))
        except BaseException:
            with contextlib.suppress(StoreFault):
                await self._store.erase(new)
            raise
        copy = await self._store.load(new)
        if copy is None:
            raise ConversationNotFound(new.id)
        return copy

    async def _copy(
        self, key: ConversationKey, source: Conversation, growing: Growing, until: Until | None
    ) -> None:
        stop = source.turn_count if until is None else until.turn + 1
        is_whole = stop == source.turn_count and (until is None or until.item is None)
        cut = source.cut if is_whole else branch_cut(source.cut, stop, self._editor.window_of(source))
        async for first, turns in pages(self._store, key, 0, stop):
            for at, turn in enumerate(turns, start=first):
                ends = until is not None and at == until.turn
                await growing.add(Grouped(_ended(turn, until) if ends else turn), cut=cut)
        await growing.flush(cut=cut)
        memories = [one for one in source.memories if one.covers_to <= stop]
        # What it shows goes first: the store keeps that version, whatever comes behind it.
        await growing.settle(
            cut=cut,
            shows=shows_at(cut, source.cut, source.shows, memories),
            binding=source.binding,
            at=self._editor.now(),
        )
        await growing.remember(memories)

    async def _check(self, key: ConversationKey, new: ConversationKey, count: int) -> None:
        """What was copied is still so; the turn at which the copy ends was looked at when it was read."""
        for first in range(0, count, _DIGESTS):
            last = min(first + _DIGESTS, count)
            if await self._store.digests(key, first, last) == await self._store.digests(new, first, last):
                continue
            if await self._store.load(key) is None:
                raise ConversationNotFound(key.id)
            raise _replaced()


def _ended(turn: Turn, until: Until | None) -> Turn:
    if until is None or until.item is None:
        return turn
    if until.item.id not in {item.id for item in items_of(turn, until.turn)}:
        raise _replaced()
    return up_to(turn, until.item)


def _replaced() -> ConversationBusy:
    reason = "turns of the conversation were replaced while it was being copied; try again"
    return ConversationBusy(reason, retry_after_ms=1000)
