"""The fleet simulator's cache by extents, against one that keeps every block by itself."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bench.fleet.cache import ExtentCache
from bench.fleet.prompt import Extent

Block = tuple[int, int]
PERSONA = 3
"""Blocks of a persona."""


class BlockByBlock:
    """Least recently freed first, tail first within a request; what is held stays."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free: OrderedDict[Block, None] = OrderedDict()
        self.held: dict[Block, int] = {}
        self.reserved = 0

    def acquire(self, blocks: list[Block], reserve: int) -> int | None:
        hit = 0
        for block in blocks:
            if block not in self.free and block not in self.held:
                break
            hit += 1
        pinned = set(self.held) | set(blocks)
        if len(pinned) + self.reserved + reserve > self.capacity:
            return None
        for block in blocks:
            self.free.pop(block, None)
            self.held[block] = self.held.get(block, 0) + 1
        self.reserved += reserve
        while len(self.held) + self.reserved + len(self.free) > self.capacity:
            self.free.popitem(last=False)
        return hit

    def release(self, blocks: list[Block], reserve: int, answer: list[Block]) -> None:
        self.reserved -= reserve
        for block in [*blocks, *answer][::-1]:
            left = self.held.pop(block, 1) - 1
            if left:
                self.held[block] = left
            else:
                self.free[block] = None


def blocks_of(extents: tuple[Extent, ...]) -> list[Block]:
    return [(name, at) for name, count in extents for at in range(count)]


class TwoCaches(RuleBasedStateMachine):
    """Dialogues that grow behind shared personas, one message at a time each, many at once."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = ExtentCache(40)
        self.naive = BlockByBlock(40)
        self.sizes: dict[int, int] = {}
        self.running: dict[int, tuple[tuple[Extent, ...], int]] = {}
        self.now = 0.0

    @rule(dialogue=st.integers(0, 5), grows=st.integers(0, 6), reserve=st.integers(0, 4))
    def ask(self, dialogue: int, grows: int, reserve: int) -> None:
        """A prompt's hit is the same, or it fits neither."""
        if dialogue in self.running:
            return
        self.now += 1
        size = self.sizes.get(dialogue, 0) + grows
        extents = ((1000 + dialogue % 2, PERSONA), (dialogue, size))
        stored = self.cache.match(extents)
        expected = self.naive.acquire(blocks_of(extents), reserve)
        assert expected == self.cache.acquire(extents, reserve)
        if expected is not None:
            assert stored == expected
            self.sizes[dialogue] = size
            self.running[dialogue] = (extents, reserve)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """What a request leaves can be found, and is evicted in the same order."""
        self.now += 1
        dialogue = data.draw(st.sampled_from(sorted(self.running)))
        extents, reserve = self.running.pop(dialogue)
        kept = data.draw(st.integers(0, reserve))
        size = self.sizes[dialogue]
        added = [(dialogue, size + at) for at in range(kept)]
        self.sizes[dialogue] = size + kept
        self.naive.release(blocks_of(extents), reserve, added)
        self.cache.release(extents, reserve, self.now, answer=(dialogue, kept))

    @invariant()
    def both_have_the_same_blocks(self) -> None:
        """Stored, pinned and reserved blocks agree."""
        naive = OrderedDict[int, int]()
        for name, _ in self.naive.free:
            naive[name] = naive.get(name, 0) + 1
        assert dict(naive) == {name: count for name, count in self.cache.order() if count}
        assert len(self.naive.held) + self.naive.reserved == self.cache.pinned_blocks

    @invariant()
    def capacity_holds(self) -> None:
        """Never more blocks than there are."""
        assert self.cache.free_blocks + self.cache.pinned_blocks <= self.cache.capacity


TestTwoCaches = TwoCaches.TestCase


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 6)), min_size=1, max_size=40))
def test_eviction_takes_what_was_freed_first(uses: list[tuple[int, int]]) -> None:
    """The order in which extents stand is the order of their last use."""
    cache = ExtentCache(20)
    last: dict[int, int] = {}
    for at, (name, count) in enumerate(uses):
        extents = ((name, max(count, cache.stored(name))),)
        assert cache.acquire(extents, 0) is not None
        cache.release(extents, 0, float(at))
        last[name] = at

    left = [name for name, _ in cache.order()]
    assert sorted(left, key=last.__getitem__) == left


def test_request_that_pins_too_much_changes_nothing() -> None:
    """What does not fit waits, and takes nothing from others meanwhile."""
    cache = ExtentCache(10)
    assert cache.acquire(((1, 6),), 0) == 0
    cache.release(((1, 6),), 0, 1.0)
    assert cache.acquire(((2, 8),), 0) == 0

    assert cache.acquire(((3, 2),), 1) is None
    assert (cache.pinned_blocks, cache.free_blocks) == (8, 2)


def test_node_that_restarts_has_nothing() -> None:
    """After a clear every prompt is cold."""
    cache = ExtentCache(10)
    assert cache.acquire(((1, 6),), 2) == 0
    cache.clear()
    assert cache.match(((1, 6),)) == 0
    assert cache.acquire(((1, 10),), 0) == 0
