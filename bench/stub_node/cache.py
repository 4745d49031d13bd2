"""A block cache with the rules of vLLM's: chained hashes, reference counts, least recently used goes first.

Prompts are cut into blocks of B tokens; a block's hash covers its parent's hash, its tokens and, through
the seed of the chain, whatever separates caches (salt, adapter). Only full blocks are stored. Of a prompt
of P tokens at most P - 1 count as cached, since the last one is computed in any case to get the first
answer token.

SGLang is the same with its page size as B (a radix tree over pages finds the same longest prefix),
llama.cpp is B = 1. One difference to vLLM is kept: equal blocks computed side by side are stored once, not
twice.

A block is blank (no content), stored and free (may be evicted, oldest release first), or held by running
requests. A request gives its blocks back tail first, and whoever holds a block holds its ancestors, so a
block is always evicted before its parent. Every operation costs O(blocks of the prompt); nothing here knows
time or IO.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import xxhash

from bench.stub_node.kv_forms import Cleared, Event, Removed, Stored
from bench.stub_node.tokens import Tokens


def chain_seed(*parts: str) -> int:
    """The start of a hash chain: equal prompts under different parts (salt, adapter) share no block."""
    return xxhash.xxh3_64_intdigest("\x00".join(parts).encode()) if any(parts) else 0


def chain(tokens: Tokens, *, block_size: int, seed: int = 0, known: Sequence[int] = ()) -> list[int]:
    """The hashes of all full blocks of `tokens`; `known` are those of its first blocks, taken as they are."""
    view = memoryview(tokens).cast("B")
    step = block_size * tokens.itemsize
    hashes = list(known)
    parent = hashes[-1] if hashes else seed
    for start in range(len(hashes) * step, len(view) - step + 1, step):
        parent = xxhash.xxh3_64_intdigest(view[start : start + step], parent)
        hashes.append(parent)
    return hashes


@dataclass(slots=True)
class Lease:
    """The blocks of one running request: `held` have content, in order; `blank` are still to be filled."""

    hit_blocks: int
    held: list[int] = field(default_factory=list)
    blank: int = 0


class BlockCache:
    """Blocks of one node. `capacity` is never exceeded: free, held and blank blocks always add up to it."""

    def __init__(
        self, *, block_size: int, capacity: int, on_event: Callable[[Event], None] = lambda _: None
    ) -> None:
        self._on_event = on_event
        self.block_size = block_size
        self.capacity = capacity
        self._free: OrderedDict[int, None] = OrderedDict()  # stored, held by nobody; the first goes first
        self._holders: dict[int, int] = {}  # stored and held: hash -> number of leases
        self._blank_held = 0

    @property
    def held_blocks(self) -> int:
        """Blocks that running requests keep from eviction."""
        return len(self._holders) + self._blank_held

    @property
    def stored_blocks(self) -> int:
        """Blocks with content, held or not."""
        return len(self._free) + len(self._holders)

    def match(self, hashes: Sequence[int], *, prompt_tokens: int) -> int:
        """How many leading blocks of a prompt of `prompt_tokens` tokens are stored."""
        limit = min(len(hashes), max(0, prompt_tokens - 1) // self.block_size)
        for index in range(limit):
            if hashes[index] not in self._free and hashes[index] not in self._holders:
                return index
        return limit

    def acquire(self, hashes: Sequence[int], *, prompt_tokens: int, total_tokens: int) -> Lease | None:
        """Hold the stored part of the prompt and make room for the rest, up to `total_tokens`.

        Returns None, with nothing changed, when the blocks that others hold leave too little room.
        """
        hit = self.match(hashes, prompt_tokens=prompt_tokens)
        needed = -(-total_tokens // self.block_size) - hit
        from_free = sum(h in self._free for h in islice(hashes, hit))
        if needed > self.capacity - self.held_blocks - from_free:
            return None
        held = list(islice(hashes, hit))
        for block in held:
            self._hold(block)
        blank_free = self.capacity - self.held_blocks - len(self._free)
        gone = [self._free.popitem(last=False)[0] for _ in range(needed - blank_free)]
        if gone:
            self._on_event(Removed(gone))
        self._blank_held += needed
        return Lease(hit_blocks=hit, held=held, blank=needed)

    def store(self, lease: Lease, hashes: Sequence[int]) -> None:
        """Give content to the lease's blanks: `hashes` is the whole chain computed so far.

        Raises ValueError when the chain is longer than the lease has room for.
        """
        fresh = hashes[len(lease.held) :]
        if len(fresh) > lease.blank:
            raise ValueError(f"{len(fresh)} new blocks do not fit into {lease.blank} leased ones")
        for block in fresh:
            self._hold(block)
        if fresh:
            self._on_event(Stored(fresh, lease.held[-1] if lease.held else None, self.block_size))
        lease.held.extend(fresh)
        lease.blank -= len(fresh)
        self._blank_held -= len(fresh)

    def release(self, lease: Lease) -> None:
        """Give all back; what has content stays findable until it is evicted. A second call does nothing."""
        self._blank_held -= lease.blank
        for block in reversed(lease.held):
            left = self._holders.pop(block) - 1
            if left:
                self._holders[block] = left
            else:
                self._free[block] = None
        lease.held = []
        lease.blank = 0

    def clear(self) -> int:
        """Forget every block that no running request holds; the number forgotten."""
        forgotten = list(self._free)
        self._free.clear()
        self._on_event(Removed(forgotten) if self._holders else Cleared())
        return len(forgotten)

    def _hold(self, block: int) -> None:
        self._free.pop(block, None)
        self._holders[block] = self._holders.get(block, 0) + 1
