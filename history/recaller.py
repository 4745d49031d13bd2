"""Recall for the conversations of one replica: which indexes are in memory, and who builds them.

The indexes are a cache of what the store has. One is built when a message first needs it, grows as turns
leave the window, and goes when nobody asked for it for long, when there are too many, or when the archive it
was made of is no more. A message waits for an index that is not there yet, but not longer than `wait_s`: then
it goes without, and the next one will find it.

Everything happens on the event loop. A search takes less than the way to a thread and back; building is done
in slices of a fraction of a millisecond, with everybody else in between: a thread would hold the lock of the
interpreter for longer.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Literal

import msgspec

from history.conversation import ConversationKey, Turn
from history.meaning import Vectors, VectorSpan, form_of, is_of_form
from history.passage import Passage, remembered
from history.ports import Embedder
from history.recall import RecallRule, Sentence, sentences
from history.recall_index import RecallIndex
from history.stem import stem
from history.vector_index import VectorIndex

State = Literal["nothing", "warm", "grown", "built", "late"]
"""`nothing`: the message refers to nothing, or nothing has left the window. `grown`, `built`: it waited for
turns to be added, or for the whole index. `late`: it did not wait any longer."""

Read = Callable[[ConversationKey, int, int], Awaitable[Sequence[Turn]]]
"""Turns `start` to `stop` of a conversation, as `ConversationStore.read` gives them."""

ReadVectors = Callable[[ConversationKey, int, int], Awaitable[tuple[VectorSpan, Sequence[bytes]]]]
"""The vectors of turns `start` to `stop`, as `ConversationStore.vectors` gives them."""

_PAGE = 500
_SLICE_CHARS = 4_000
"""How much is read into an index at a time."""
_BASE_BYTES = 1024
"""What an index takes with nothing in it."""
_LOOK_AGAIN_S = 30.0
"""How long nothing is asked of vectors that were not there yet, or whose making another replica tends to."""


class RecallCacheRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many indexes a replica keeps, and for how long."""

    max_indexes: int = 2_000
    max_bytes: int = 512 * 1024 * 1024
    idle_s: float = 1_800.0
    """An index that nobody asked for so long goes; what was erased on another replica is gone after this."""
    wait_s: float = 0.25
    """How long a message waits for its index."""
    builds: int = 2
    """How many are built at a time."""


class Meaning(msgspec.Struct, frozen=True):
    """What recall by meaning needs: who makes vectors of questions, and where those of turns are kept."""

    embedder: Embedder
    read: ReadVectors


class Recalled(msgspec.Struct, frozen=True):
    """What came back for a message, in the order it was said, and how it was come by."""

    passages: tuple[Passage, ...]
    state: State


class _Entry:
    """One conversation's index, and who is busy with it."""

    def __init__(self, archive: str, start: int) -> None:
        self.archive = archive
        self.index = RecallIndex(start=start)
        self.vectors = VectorIndex(start=start)
        self.looked_at = -math.inf
        """When the store was last asked for vectors."""
        self.filling: asyncio.Task[None] | None = None
        self.used_at = 0.0
        self.users = 0
        self.counted = 0
        self.dropped = False


class Recaller:
    """Recall over one store. `clock`: seconds, monotonic. `close` ends it.

    `archive` in every method names what the archived turns are: while it is the same, so are the turns before
    the cut, at their positions (see `archive_mark`; name the conversation's `created_at` too, for an id that
    is used again after it was erased). `cut` is the cut as it is stored.
    """

    def __init__(
        self,
        read: Read,
        rule: RecallRule,
        cache: RecallCacheRule,
        clock: Callable[[], float],
        meaning: Meaning | None = None,
    ) -> None:
        self._read = read
        self._rule = rule
        self._cache = cache
        self._clock = clock
        self.meaning = meaning
        """None: by words alone. Whoever makes vectors is put together later than this."""
        self._form = form_of(rule.meaning)
        self._entries: OrderedDict[ConversationKey, _Entry] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._building = asyncio.Semaphore(cache.builds)
        self._bytes = 0
        self.reads = 0
        """Trips to the store so far."""

    @property
    def indexes(self) -> int:
        """How many indexes are in memory."""
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What they take, about."""
        return self._bytes

    async def recall(self, key: ConversationKey, text: str, *, archive: str, cut: int) -> Recalled:
        """What the message refers to among the turns before the cut. Raises what reading the store raises."""
        asked = sentences(text) if self._rule.enabled and cut > 0 else ()
        if not asked:
            return Recalled((), "nothing")
        entry = self._entry(key, archive, cut)
        if entry.index.stop >= cut and self.meaning is None:
            passages = entry.index.search(asked, self._rule, cut=cut)
            self.prune()
            return Recalled(passages, "warm")
        state: State = "warm" if entry.index.stop >= cut else "built"
        if state != "warm" and entry.index.stop > entry.index.start:
            state = "grown"
        with self._using(entry):
            if state != "warm" and not await self._caught_up(key, entry, cut):
                return Recalled((), "late")
            near = await self._near(key, entry, asked, cut)
            return Recalled(entry.index.search(asked, self._rule, cut=cut, near=near), state)

    def embedded(self, key: ConversationKey, vectors: Vectors, archive: str) -> None:
        """These vectors were made and stored: an index in memory takes them, with no trip."""
        entry = self._entries.get(key)
        if entry is not None and entry.archive == archive and is_of_form(vectors.form, self._form):
            entry.vectors.take(vectors.start, vectors.records)
            self._settle(entry)
            self.prune()

    def warm(self, key: ConversationKey, *, archive: str, cut: int) -> None:
        """Begin to build the index if it is not there: a message will come soon."""
        if self._rule.enabled and cut > 0:
            entry = self._entry(key, archive, cut)
            if entry.index.stop < cut and entry.filling is None:
                self._start(entry, self._fill(key, entry, cut))

    def left(self, key: ConversationKey, turns: Sequence[Turn], *, archive: str, start: int) -> None:
        """Turns from position `start` on have left the window: an index in memory takes them, with no trip.

        Where there is none, or it has not come so far, nothing happens.
        """
        entry = self._entries.get(key)
        if entry is None or entry.archive != archive or entry.filling or entry.index.stop < start:
            return
        self._start(entry, self._take(entry, turns, start))

    def forget(self, key: ConversationKey) -> None:
        """Drop the index of a conversation that is no more, and the words that were looked up with it."""
        self._drop(key)
        stem.cache_clear()

    def prune(self) -> None:
        """Drop what was idle for too long, then what was used longest ago until the bounds hold."""
        since = self._clock() - self._cache.idle_s
        for key, entry in list(self._entries.items()) if self._has_too_many(since) else ():
            if entry.users == 0 and entry.filling is None and self._has_too_many(since):
                self._drop(key)

    async def close(self) -> None:
        """End what is being built, and give the memory back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for key in list(self._entries):
            self._drop(key)

    def _drop(self, key: ConversationKey) -> None:
        if entry := self._entries.pop(key, None):
            entry.dropped = True
            self._settle(entry)

    def _entry(self, key: ConversationKey, archive: str, cut: int) -> _Entry:
        entry = self._entries.get(key)
        if entry is None or entry.archive != archive:
            self._drop(key)
            entry = self._entries[key] = _Entry(archive, max(0, cut - self._rule.max_turns))
        self._entries.move_to_end(key)
        entry.used_at = self._clock()
        return entry

    def _has_too_many(self, since: float) -> bool:
        return (
            len(self._entries) > self._cache.max_indexes
            or self._bytes > self._cache.max_bytes
            or any(entry.used_at < since for entry in islice(self._entries.values(), 1))
        )

    async def _near(
        self, key: ConversationKey, entry: _Entry, asked: Sequence[Sentence], cut: int
    ) -> Sequence[int]:
        """The turns that are near by meaning to what the message asks; who tells, asks for nothing."""
        question = " ".join(one.text.strip() for one in asked if one.asks)
        if self.meaning is None or not question:
            return ()
        if entry.vectors.stop < cut and entry.filling is None and self._is_to_look(entry):
            self._start(entry, self._fill(key, entry, cut))
        if entry.vectors.stop == entry.vectors.start:
            return ()
        vector = await self.meaning.embedder.of_question(question)
        if vector is None:
            return ()
        return entry.vectors.search(vector, cut=cut, stands_out=self._rule.meaning.stands_out)

    def _is_to_look(self, entry: _Entry) -> bool:
        return self._clock() - entry.looked_at >= _LOOK_AGAIN_S

    async def _caught_up(self, key: ConversationKey, entry: _Entry, cut: int) -> bool:
        """Wait for the index, for turns that are on their way to it first. Whether it was there in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._cache.wait_s
        for _ in range(2):
            filling = entry.filling or self._start(entry, self._fill(key, entry, cut))
            await asyncio.wait({filling}, timeout=max(0.0, until - loop.time()))
            if not filling.done():
                return entry.index.stop >= cut
            filling.result()
            if entry.index.stop >= cut:
                break
        return True

    async def _fill(self, key: ConversationKey, entry: _Entry, cut: int) -> None:
        """Read what the index lacks, page by page."""
        async with self._building:
            while (start := entry.index.stop) < cut:
                self.reads += 1
                turns = await self._read(key, start, min(cut, start + _PAGE))
                if not turns:
                    return
                await self._take(entry, turns, start)
            if self.meaning is not None and entry.vectors.stop < cut and self._is_to_look(entry):
                await self._fill_vectors(self.meaning, key, entry)

    async def _fill_vectors(self, meaning: Meaning, key: ConversationKey, entry: _Entry) -> None:
        """Read the vectors that the index lacks, as far as they are made and fit."""
        entry.looked_at = self._clock()
        start = before = entry.vectors.stop
        while start < entry.vectors.seen:
            self.reads += 1
            span, records = await meaning.read(key, start, start + _PAGE)
            if not is_of_form(span.form, self._form) or not records:
                return
            entry.vectors.take(max(start, span.start), records)
            start = entry.vectors.stop
            if start == before:
                return
            before = start

    async def _take(self, entry: _Entry, turns: Sequence[Turn], start: int) -> None:
        slice_chars = 0
        for at, turn in enumerate(turns, start):
            passage = remembered(at, turn, max_chars=self._rule.max_chars)
            if self.meaning is not None and at == entry.vectors.seen:
                entry.vectors.saw(turn.digests)
                entry.vectors.keep_newest(self._rule.max_turns)
            entry.index.add((passage,), max_turns=self._rule.max_turns)
            slice_chars += sum(map(len, turn.messages))
            if slice_chars > _SLICE_CHARS:
                slice_chars = 0
                await asyncio.sleep(0)

    def _start(self, entry: _Entry, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Begin to change an index. Who waits for the task gets its error; the next message tries again."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            entry.filling = None
            self._settle(entry)
            self.prune()
            if not task.cancelled():
                task.exception()

        task = entry.filling = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task

    @contextmanager
    def _using(self, entry: _Entry) -> Iterator[None]:
        """Keep the index while a message needs it."""
        entry.users += 1
        try:
            yield
        finally:
            entry.users -= 1
            self._settle(entry)
            self.prune()

    def _settle(self, entry: _Entry) -> None:
        """Count what the index takes; give it back if it was dropped and nobody is busy with it."""
        takes = 0 if entry.dropped else entry.index.size + entry.vectors.size + _BASE_BYTES
        self._bytes += takes - entry.counted
        entry.counted = takes
        if entry.dropped and entry.users == 0 and entry.filling is None:
            entry.index.close()
            entry.vectors.close()
