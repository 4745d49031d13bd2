"""Many turns written into one conversation, chunk by chunk: a fork, an import. The use case.

Each chunk is one commit under a lease of its own, so no call is large and nobody waits for all of it. Between
two chunks the conversation may be erased, or somebody else may write to it: then the next chunk is refused,
and nothing comes back that was erased.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from history.beginning import Beginning
from history.conversation import Binding, ConversationKey, Memory
from history.editing import Editor
from history.errors import ConversationErased, ConversationMismatch, ConversationNotFound
from history.grouping import Grouped
from history.ports import Begun, Branch, Change, ConversationStore, Learned

CHUNK_TURNS = 200
CHUNK_BYTES = 1_000_000


class Growing:
    """One conversation that grows. `count`: the turns that it has already, None if there is none of it."""

    def __init__(
        self,
        editor: Editor,
        store: ConversationStore,
        key: ConversationKey,
        beginning: Beginning,
        count: int | None = None,
    ) -> None:
        self._editor = editor
        self._store = store
        self._key = key
        self._beginning = beginning
        self._count = count
        self._waiting: list[Grouped] = []
        self._bytes = 0

    @property
    def count(self) -> int:
        """How many turns have been written."""
        return self._count or 0

    async def add(self, group: Grouped, *, cut: int | None = None) -> None:
        """One more turn, written with its chunk. `cut`: where the cut is to lie at last."""
        self._waiting.append(group)
        self._bytes += sum(len(one) for turn in (group.turn, *group.versions) for one in turn.messages)
        if len(self._waiting) >= CHUNK_TURNS or self._bytes >= CHUNK_BYTES:
            await self.flush(cut=cut)

    async def replace_last(self, group: Grouped) -> None:
        """The last turn, which had no answer, as it went on."""
        await self.flush()
        keep = self.count - 1
        branches = _branches(keep, [group])
        await self._write(Change(keep=keep, append=(group.turn,), at=0.0, branches=branches))

    async def flush(self, *, cut: int | None = None, branches: tuple[Branch, ...] = ()) -> None:
        """Write what waits, and branches; the conversation exists afterwards, though it may have no turn."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting and not branches and self._count is not None:
            return
        after = self.count + len(waiting)
        change = Change(
            keep=self.count,
            append=tuple(group.turn for group in waiting),
            at=0.0,
            branches=(*_branches(self.count, waiting), *branches),
            cut=None if cut is None else min(cut, after),
        )
        await self._write(change)

    async def remember(self, memories: Sequence[Memory]) -> None:
        """Take over versions of the memory, oldest first; those that cover too many turns are left out."""
        conversation = await self._store.load(self._key)
        for memory in memories:
            if conversation is None:
                raise ConversationErased("it was erased while it was being written")
            start = max(0, memory.covers_to - 1)
            made_of = await self._store.digests(self._key, start, memory.covers_to)
            version = conversation.memory_version
            learned = Learned(
                memory=replace(memory, version=version + 1),
                expected_version=version,
                start=start,
                digests=b"".join(made_of),
            )
            await self._store.remember(self._key, learned)
            conversation = await self._store.load(self._key)

    async def settle(self, *, cut: int, shows: int, binding: Binding | None, at: float) -> None:
        """What the window shows, once all turns are there."""
        change = Change(keep=self.count, append=(), at=at, cut=cut, shows=shows, binding=binding)
        await self._write(change)

    async def _write(self, change: Change) -> None:
        expected, beginning = self._count, self._beginning
        first = expected is None

        async def plan(begun: Begun) -> Change:
            if begun.conversation.turn_count != (expected or 0) or begun.is_new is not first:
                reason = "somebody else has written to this conversation meanwhile"
                raise ConversationMismatch(reason)
            if not first:
                return replace(change, at=change.at or self._editor.now())
            return replace(
                change,
                at=beginning.created_at or self._editor.now(),
                persona=beginning.persona,
                metadata=beginning.metadata,
            )

        try:
            edited = await self._editor.edit(self._key, plan, beginning.owner if first else None)
        except ConversationNotFound as error:
            raise ConversationErased("it was erased while it was being written") from error
        self._count = edited.conversation.turn_count


def _branches(start: int, groups: Sequence[Grouped]) -> tuple[Branch, ...]:
    """The versions of these turns, as branches that left at their places."""
    return tuple((start + at, (version,)) for at, group in enumerate(groups) for version in group.versions)
