"""A store whose turns far behind the window lie in an archive; from outside it is one store.

Reading reaches into the archive by itself, a branch that goes back to archived turns first restores them,
and erasing erases both.
"""

from collections.abc import Sequence
from typing import Any, cast

from history.archive import SEGMENT
from history.conversation import Conversation, ConversationKey, Lease, Turn
from history.errors import StoreUnavailable, TurnsArchived
from history.ports import Archive, Change, ConversationStore

_TRIES = 3


def with_archive(store: ConversationStore, archive: Archive) -> ConversationStore:
    """The store with an archive behind it."""
    return cast("ConversationStore", _ArchivedStore(store, archive))


class _ArchivedStore:
    """Only what differs is written here; everything else is the store's own."""

    def __init__(self, store: ConversationStore, archive: Archive) -> None:
        self._store = store
        self._archive = archive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        """Turns `start` to `stop`, wherever they are."""
        start = max(0, start)
        base, kept = await self._store.kept(key, start, stop)
        if start >= min(base, stop):
            return kept
        return (*await self._archive.read(key, start, min(base, stop)), *kept)

    async def commit(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        """Write the change, also one that goes back to archived turns."""
        for _ in range(_TRIES):
            try:
                return await self._store.commit(key, lease, change)
            except TurnsArchived as fault:
                await self._restore(key, fault.base, change)
        raise StoreUnavailable("the archive took turns away as quickly as they were restored")

    async def erase(self, key: ConversationKey) -> None:
        """Delete a conversation here and there."""
        await self._store.erase(key)
        await self._archive.erase(key)

    async def erase_user(self, tenant: str, user: str) -> int:
        """Delete all of a user's conversations here and there; safe to ask again if it broke off.

        The archive goes first, while the user's index still says what there is; and again afterwards, for a
        piece that was being written: nothing is written for a conversation that is gone.
        """
        keys = [ConversationKey(tenant, one) for one in await self._store.conversations_of(tenant, user)]
        for key in keys:
            await self._archive.erase(key)
        count = await self._store.erase_user(tenant, user)
        for key in keys:
            await self._archive.erase(key)
        return count

    async def _restore(self, key: ConversationKey, base: int, change: Change) -> None:
        wanted = change.keep if change.cut is None else min(change.keep, change.cut)
        start = wanted - wanted % SEGMENT
        turns: Sequence[Turn] = await self._archive.read(key, start, base)
        await self._store.restore(key, start, turns)
