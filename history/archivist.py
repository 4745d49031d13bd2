"""Moving turns far behind the window into the archive, piece by piece. The use case.

First the piece is written, then the store lets go of its turns, by compare-and-set on what they say. A
process that dies between the two has lost nothing: the same piece is written again.
"""

from history.archive import SEGMENT, ArchiveRule
from history.conversation import Conversation, ConversationKey
from history.ports import Archive, Archived, ConversationStore


class Archivist:
    """Tends the conversations of one store."""

    def __init__(self, store: ConversationStore, archive: Archive, rule: ArchiveRule) -> None:
        self._store = store
        self._archive = archive
        self._rule = rule

    def is_due(self, conversation: Conversation) -> bool:
        """Whether a whole piece lies far enough behind the window."""
        return conversation.base + SEGMENT <= conversation.cut - self._rule.behind_turns

    async def tend(self, key: ConversationKey) -> int:
        """Move what is due; returns how many turns. Raises `StoreFault`."""
        moved = 0
        while (conversation := await self._store.load(key)) and self.is_due(conversation):
            start, stop = conversation.base, conversation.base + SEGMENT
            base, turns = await self._store.kept(key, start, stop)
            if base != start or len(turns) != SEGMENT:
                break
            await self._archive.write(key, start, turns)
            digests = b"".join(turn.digests for turn in turns)
            if not await self._store.shed(key, Archived(start=start, stop=stop, digests=digests)):
                await self._clear(key)
                break
            moved += SEGMENT
        return moved

    async def _clear(self, key: ConversationKey) -> None:
        """Nothing of a conversation that was erased meanwhile may stay."""
        if await self._store.load(key) is None:
            await self._archive.erase(key)
