"""Policies that guess the nodes' caches from what they sent there: approximate radix trees.

`CacheAware` is SMG's: a match of more than 0.3 goes to the least loaded of its holders, else to the least
loaded node; a node that has more than 1.5 times the mean and 64 more spills to the least loaded, which becomes
a holder too. `FleetSwitch` is the older form that vllm-router has: affinity is off for everybody while the
fleet is out of balance, and what matches nothing goes to the smallest tree.

A tree is kept by extents, which is exact for prompts that share whole extents.
"""

import random
from collections import OrderedDict

from bench.fleet.policy import Own, Sight
from bench.fleet.prompt import Extent, Prompt, Request

_THRESHOLD = 0.3
_ABSOLUTE = 64
_RELATIVE = 1.5
_MAX_TOKENS = 67_108_864 // 4
"""The tree's bound is in characters."""


class Tree:
    """Which extents each node was sent, as far as is remembered; the least recently matched goes first."""

    def __init__(self, nodes: int, *, block: int, max_tokens: int = _MAX_TOKENS) -> None:
        self._held: OrderedDict[int, dict[int, int]] = OrderedDict()
        self._max_blocks = max_tokens // block
        self._blocks = 0
        self.sizes = [0] * nodes

    def match(self, extents: tuple[Extent, ...]) -> tuple[int, list[int]]:
        """The longest match in blocks, and the nodes that have it."""
        depth, whole, best = 0, None, 0
        holders: list[int] = []
        for name, blocks in extents:
            held = self._held.get(name)
            if held is None:
                break
            alive = held if whole is None else {node: has for node, has in held.items() if node in whole}
            if not alive:
                break
            self._held.move_to_end(name)
            longest = min(blocks, max(alive.values()))
            best = depth + longest
            holders = [node for node, has in alive.items() if has >= longest]
            whole = {node for node, has in alive.items() if has >= blocks}
            depth += blocks
        return best, holders

    def insert(self, extents: tuple[Extent, ...], node: int) -> None:
        """A node was sent a prompt."""
        for name, blocks in extents:
            held = self._held.setdefault(name, {})
            more = blocks - held.get(node, 0)
            if more > 0:
                held[node] = blocks
                self.sizes[node] += more
                self._blocks += more
            self._held.move_to_end(name)
        while self._blocks > self._max_blocks:
            self._drop(self._held.popitem(last=False)[1])

    def remove(self, node: int) -> None:
        """A node is gone."""
        for name in list(self._held):
            has = self._held[name].pop(node, 0)
            self._blocks -= has
            if not self._held[name]:
                del self._held[name]
        self.sizes[node] = 0

    def _drop(self, held: dict[int, int]) -> None:
        for node, blocks in held.items():
            self.sizes[node] -= blocks
            self._blocks -= blocks


class CacheAware(Own):
    """SMG's `cache_aware` since August 2026, over plain HTTP."""

    def __init__(self, sight: Sight, replica: int) -> None:
        super().__init__(sight, replica)
        self._dice = random.Random(sight.seed * 37 + replica)
        self.tree = Tree(self.count, block=sight.nodes[0].card.block)

    def choose(self, request: Request, now: float) -> int:
        """By match, then by load."""
        able = self.able(request)
        node = self.pick(request.prompt, able)
        self.tree.insert(request.prompt.extents, node)
        return self.send(node)

    def pick(self, prompt: Prompt, able: list[int]) -> int:
        """The decision; loads are what this replica sent."""
        matched, holders = self.tree.match(prompt.extents)
        fit = [node for node in holders if node in able]
        total = prompt.tokens // self.sight.nodes[0].card.block
        if not fit or matched <= _THRESHOLD * max(1, total):
            return self.least(able)
        chosen = self.least(fit)
        mean = sum(self.running) / self.count
        if self.running[chosen] > _RELATIVE * mean and self.running[chosen] > mean + _ABSOLUTE:
            return self.least(able)
        return chosen

    def least(self, nodes: list[int]) -> int:
        """The least loaded; ties by dice."""
        load = min(self.running[node] for node in nodes)
        return self._dice.choice([node for node in nodes if self.running[node] == load])

    def lost(self, node: int) -> None:
        """Its tree is dropped."""
        super().lost(node)
        self.tree.remove(node)


class FleetSwitch(CacheAware):
    """vllm-router's `cache_aware`."""

    def pick(self, prompt: Prompt, able: list[int]) -> int:
        """No affinity while the fleet is out of balance."""
        loads = [self.running[node] for node in able]
        if max(loads) - min(loads) > _ABSOLUTE and max(loads) > _RELATIVE * min(loads):
            return self.least(able)
        matched, holders = self.tree.match(prompt.extents)
        fit = [node for node in holders if node in able]
        if fit and matched > _THRESHOLD * max(1, prompt.tokens // self.sight.nodes[0].card.block):
            return self._dice.choice(fit)
        return min(able, key=lambda node: (self.tree.sizes[node], self._dice.random()))
