"""An engine's prefix cache, by the block: what of a prompt is still there when it comes. Pure.

Engines name a block by its tokens and its parent's name, so what two prompts share is always a beginning of
both. Here such beginnings are *extents*: all blocks that one chain has beyond another. A persona's blocks are
one extent, a conversation's blocks behind it until its next cut another. A turn then costs a few steps,
however long its prompt is; the tests hold it against a cache of hashed blocks.

Evicted is what was used least recently, and of one extent its end first, as vLLM and SGLang do it: a request
gives its blocks back last one first.
"""

from collections import OrderedDict
from math import inf

Extent = int


class PrefixCache:
    """The cache of one node, or of a fleet whose conversations keep their nodes."""

    def __init__(self, *, capacity: int = 0, retention_s: float = inf) -> None:
        """`capacity` in blocks, 0: without end; what lay untouched for longer than `retention_s` is gone."""
        self._capacity = capacity
        self._retention_s = retention_s
        self._held: OrderedDict[Extent, list[float]] = OrderedDict()
        """By last use, oldest first: how many blocks, and when."""
        self._used = 0

    @property
    def used(self) -> int:
        """Blocks that it holds."""
        return self._used

    def held(self, extent: Extent, now: float) -> int:
        """How many of an extent's blocks are there, from its beginning on."""
        found = self._held.get(extent)
        if found is None:
            return 0
        if now - found[1] > self._retention_s:
            self.drop(extent)
            return 0
        return int(found[0])

    def match(self, shared: Extent, shared_blocks: int, own: Extent, now: float) -> int:
        """How many blocks of a prompt are there: those of the shared extent, then those of its own."""
        first = min(self.held(shared, now), shared_blocks) if shared_blocks else 0
        return first if first < shared_blocks else first + self.held(own, now)

    def keep(self, shared: Extent, shared_blocks: int, own: Extent, own_blocks: int, now: float) -> None:
        """A prompt and its answer were computed: these blocks are there now, and used just now.

        The shared ones are held longest, since nothing behind them is of use without them.
        """
        self._put(own, own_blocks, now)
        if shared_blocks:
            self._put(shared, shared_blocks, now)
        while self._capacity and self._used > self._capacity:
            self._evict()

    def drop(self, extent: Extent) -> None:
        """Forget an extent: nobody will ask for it, or it is too old."""
        if (found := self._held.pop(extent, None)) is not None:
            self._used -= int(found[0])

    def _put(self, extent: Extent, blocks: int, now: float) -> None:
        found = self._held.get(extent)
        if found is None:
            self._held[extent] = [blocks, now]
            self._used += blocks
            return
        if blocks > found[0]:
            self._used += blocks - int(found[0])
            found[0] = blocks
        found[1] = now
        self._held.move_to_end(extent)

    def _evict(self) -> None:
        extent, found = next(iter(self._held.items()))
        gone = min(int(found[0]), self._used - self._capacity)
        found[0] -= gone
        self._used -= gone
        if not found[0]:
            del self._held[extent]
