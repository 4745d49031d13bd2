"""A look at every conversation: tenants' totals are counted anew, the archive is rid of what expired.

When a life span runs out nobody is told: the totals go on counting what is gone, and its pieces stay in the
archive. So now and then somebody compares. The use case.

A piece of a conversation that is there must never go, so a folder of the archive goes only if all its pieces
are older than `keep_s`, if two looks at all conversations one after the other did not find its own (keys that
move between the nodes of a cluster may escape one look), and if the looks found any conversation at all: a
store that came back empty is no reason to throw its archive away as well.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from history.archive import folder_of
from history.conversation import Stored
from history.ports import Archive, ConversationStore

_FOLDERS_AT_ONCE = 100_000
"""How many folders of the archive are held against the conversations in one go."""
_FIRST_AFTER_S = 60.0


class Found(msgspec.Struct, frozen=True):
    """What a tenant has."""

    conversations: int
    stored: Stored


class Swept(msgspec.Struct, frozen=True):
    """What a sweep has seen and done."""

    tenants: dict[str, Found]
    folders: int = 0
    """Conversations whose pieces went from the archive, or would have gone."""
    pieces: int = 0
    """How many pieces they were; 0 where nothing was to be removed."""
    refused: int = 0
    """Folders that stayed only because the store holds no conversation at all."""


class Sweeper:
    """Sweeps one store and its archive. `clock`: Unix seconds.

    `keep_s`: how old the pieces of what is gone have to be; 0: the archive is left alone. `counts`: whether
    tenants' totals are set to what was found.
    """

    def __init__(
        self,
        store: ConversationStore,
        archive: Archive | None,
        *,
        keep_s: float,
        counts: bool,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._archive = archive if keep_s else None
        self._keep_s = keep_s
        self._counts = counts
        self._clock = clock

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to be found."""
        return self._counts or self._archive is not None

    async def sweep(self, *, removes: bool = True, even_if_empty: bool = False) -> Swept:
        """Look at everything. Without `removes`, nothing is taken from the archive. Raises `StoreFault`.

        The totals are right but for what was written or erased meanwhile.
        """
        before = self._clock() - self._keep_s
        swept: Swept | None = None
        async with aclosing(self._old_folders(before)) as batches:
            async for old in batches:
                there = await self._look(old)
                if swept is None:
                    swept = Swept(tenants=there)
                    if self._counts:
                        await self._store.recounted({name: one.stored for name, one in there.items()})
                swept = await self._clear(swept, old, before, removes=removes, even_if_empty=even_if_empty)
        assert swept is not None
        return swept

    async def run(self, every_s: float, on_end: Callable[[Swept | Exception], None]) -> None:
        """Sweep for ever, one process of all at a time; `on_end` is told what came of each, be it a fault."""
        await asyncio.sleep(min(_FIRST_AFTER_S, every_s))
        while True:
            try:
                if await self._store.is_first("sweep", within_ms=int(every_s * 1000)):
                    on_end(await self.sweep())
            except Exception as fault:  # noqa: BLE001 - a mistake in sweeping costs nobody an answer
                on_end(fault)
            # Looked at more often than due: whoever swept last may be gone by then.
            await asyncio.sleep(every_s / 4)

    async def _old_folders(self, before: float) -> AsyncGenerator[set[str], None]:
        """Folders in which everything is old, so many at once; at least one set, though it be empty."""
        old: set[str] = set()
        is_first = True
        if self._archive is not None:
            async with aclosing(self._archive.folders(before)) as folders:
                async for folder in folders:
                    old.add(folder)
                    if len(old) >= _FOLDERS_AT_ONCE:
                        yield old
                        old, is_first = set(), False
        if old or is_first:
            yield old

    async def _look(self, old: set[str]) -> dict[str, Found]:
        """Take the folders of those that are there out of `old`; what each tenant has."""
        count, turns, size = Counter[str](), Counter[str](), Counter[str]()
        async with aclosing(self._store.census()) as looking:
            async for some in looking:
                for one in some:
                    count[one.key.tenant] += 1
                    turns[one.key.tenant] += one.stored.turns
                    size[one.key.tenant] += one.stored.bytes
                    if old:
                        old.discard(folder_of(one.key))
        return {name: Found(count[name], Stored(turns[name], size[name])) for name in sorted(count)}

    async def _clear(
        self, swept: Swept, old: set[str], before: float, *, removes: bool, even_if_empty: bool
    ) -> Swept:
        if not old or self._archive is None:
            return swept
        if not swept.tenants and not even_if_empty:
            return msgspec.structs.replace(swept, refused=swept.refused + len(old))
        await self._look(old)
        folders = pieces = 0
        for folder in old:
            gone = await self._archive.clear(folder, before) if removes else 0
            folders, pieces = folders + (gone > 0 or not removes), pieces + gone
        return msgspec.structs.replace(swept, folders=swept.folders + folders, pieces=swept.pieces + pieces)
