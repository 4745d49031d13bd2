"""A node's prefix cache, block by block in effect and extent by extent in cost.

Engines free a finished request's blocks tail first and evict the block that was freed longest ago. Blocks of
one extent are freed together, so evicting from the tail of the oldest extent is the same order; a test
compares with a cache that keeps every block by itself. Blocks of running requests are pinned, and their
answers' blocks are reserved when they are admitted (engines grow them and preempt: not modelled).
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from bench.fleet.prompt import Extent


class ExtentCache:
    """Stored blocks by extent. Free, pinned and reserved blocks never exceed `capacity`."""

    __slots__ = (
        "_free",
        "_pinned",
        "_room",
        "capacity",
        "evicted",
        "evicted_until",
        "free_blocks",
        "pinned_blocks",
    )

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free: OrderedDict[int, tuple[int, float]] = OrderedDict()  # extent: blocks, when freed
        self._pinned: dict[int, list[int]] = {}  # extent: blocks, how many requests hold it
        self.free_blocks = 0
        """Stored, held by nobody."""
        self.pinned_blocks = 0
        """Held by running requests, reserved ones included."""
        self.evicted = 0
        self.evicted_until = float("-inf")
        """When the block evicted last had been used last: what was used later is still there."""

    def stored(self, extent: int) -> int:
        """Blocks of an extent."""
        pinned = self._pinned.get(extent)
        if pinned is not None:
            return pinned[0]
        free = self._free.get(extent)
        return free[0] if free is not None else 0

    def match(self, extents: Sequence[Extent]) -> int:
        """Leading blocks of a prompt that are stored."""
        hit = 0
        for name, blocks in extents:
            have = self.stored(name)
            if have < blocks:
                return hit + have
            hit += blocks
        return hit

    def order(self) -> Iterable[tuple[int, int]]:
        """What may be evicted, the next first: extents and their blocks."""
        return ((name, blocks) for name, (blocks, _) in self._free.items())

    def idle_since(self) -> float:
        """When the next block to be evicted was last used; minus infinity while there is room."""
        if self.free_blocks + self.pinned_blocks < self.capacity or not self._free:
            return float("-inf")
        return next(iter(self._free.values()))[1]

    def acquire(self, extents: Sequence[Extent], reserve: int) -> int | None:
        """Pin a prompt's blocks and reserve more for its answer; the blocks that were there already.

        None, with nothing changed, where what others pin leaves too little room.
        """
        hit = needed = freed = 0
        is_whole = True
        for name, blocks in extents:
            have = self.stored(name)
            if is_whole:
                hit += min(have, blocks)
                is_whole = have >= blocks
            needed += max(0, blocks - have)
            if name not in self._pinned:
                freed += have
        needed += reserve
        if self.pinned_blocks + freed + needed > self.capacity:
            return None
        for name, blocks in extents:
            self._pin(name, blocks)
        self.free_blocks -= freed
        self.pinned_blocks += freed + needed
        excess = self.pinned_blocks + self.free_blocks - self.capacity
        if excess > 0:
            self._evict(excess)
        return hit

    def release(
        self, extents: Sequence[Extent], reserve: int, now: float, *, answer: tuple[int, int] = (0, 0)
    ) -> None:
        """Give a request's blocks back, tail first. `answer`: an extent, and the reserved blocks it keeps."""
        name, kept = answer
        self.pinned_blocks -= reserve
        if kept:
            self._keep(name, kept, now)
        for held, _ in reversed(extents):
            entry = self._pinned[held]
            entry[1] -= 1
            if not entry[1]:
                del self._pinned[held]
                self._free[held] = (entry[0], now)
                self.pinned_blocks -= entry[0]
                self.free_blocks += entry[0]

    def clear(self) -> None:
        """Forget everything: the node was restarted."""
        self._free.clear()
        self._pinned.clear()
        self.free_blocks = self.pinned_blocks = 0

    def _pin(self, name: int, blocks: int) -> None:
        entry = self._pinned.get(name)
        if entry is None:
            free = self._free.pop(name, None)
            self._pinned[name] = [blocks if free is None or free[0] < blocks else free[0], 1]
        else:
            entry[1] += 1
            entry[0] = max(entry[0], blocks)

    def _keep(self, name: int, blocks: int, now: float) -> None:
        entry = self._pinned.get(name)
        if entry is not None:
            entry[0] += blocks
            self.pinned_blocks += blocks
            return
        self._free[name] = (blocks + self._free.get(name, (0, 0.0))[0], now)
        self.free_blocks += blocks

    def _evict(self, excess: int) -> None:
        self.evicted += excess
        while excess > 0:
            name, (blocks, at) = next(iter(self._free.items()))
            self.evicted_until = at
            if blocks > excess:
                self._free[name] = (blocks - excess, at)
                self.free_blocks -= excess
                return
            del self._free[name]
            self.free_blocks -= blocks
            excess -= blocks
