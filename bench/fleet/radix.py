"""Policies that guess the nodes' caches from what they sent there: approximate radix trees.

`cache_aware` is SMG's: a match of more than 0.3 goes to the least loaded of its holders, else to the least
loaded node; a node that has more than 1.5 times the mean and 64 more spills to the least loaded, which then
holds it too. `fleet_switch` is the older form that vllm-router has: affinity is off for everybody while the
fleet is out of balance, and what matches nothing goes to the smallest tree.

A tree is kept by extents, which is exact for prompts that share whole extents.
"""

from collections import OrderedDict
from collections.abc import Callable

from bench.fleet.policy import Own, Replica, Sight
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


def cache_aware(sight: Sight, replica: int) -> Replica:
    """SMG's `cache_aware` since August 2026, over plain HTTP."""
    return _replica(sight, replica, _matched_or_least)


def fleet_switch(sight: Sight, replica: int) -> Replica:
    """vllm-router's `cache_aware`."""
    return _replica(sight, replica, _matched_while_even)


def _replica(sight: Sight, replica: int, choose: Callable[[Own, Tree, Prompt, list[int]], int]) -> Replica:
    """A replica that notes every prompt in its tree, where it sent it."""
    own = Own(sight, replica)
    tree = Tree(own.count, block=own.block)

    def pick(request: Request, able: list[int], _: float) -> int:
        node = choose(own, tree, request.prompt, able)
        tree.insert(request.prompt.extents, node)
        return node

    return Replica(own, pick, tree.remove)


def _matched_or_least(own: Own, tree: Tree, prompt: Prompt, able: list[int]) -> int:
    """The least loaded holder, unless that one is far above the mean; loads are what this replica sent."""
    holders = _holders(own, tree, prompt, able)
    if not holders:
        return _least(own, able)
    chosen = _least(own, holders)
    mean = sum(own.running) / own.count
    if own.running[chosen] > _RELATIVE * mean and own.running[chosen] > mean + _ABSOLUTE:
        return _least(own, able)
    return chosen


def _matched_while_even(own: Own, tree: Tree, prompt: Prompt, able: list[int]) -> int:
    """Any holder; no affinity for anybody while the fleet is out of balance."""
    loads = [own.running[node] for node in able]
    if max(loads) - min(loads) > _ABSOLUTE and max(loads) > _RELATIVE * min(loads):
        return _least(own, able)
    holders = _holders(own, tree, prompt, able)
    if holders:
        return own.dice.choice(holders)
    return min(able, key=lambda node: (tree.sizes[node], own.dice.random()))


def _holders(own: Own, tree: Tree, prompt: Prompt, able: list[int]) -> list[int]:
    """Nodes with the longest match, if that is more than the threshold."""
    matched, holders = tree.match(prompt.extents)
    if matched <= _THRESHOLD * max(1, prompt.tokens // own.block):
        return []
    return [node for node in holders if node in able]


def _least(own: Own, nodes: list[int]) -> int:
    """The least loaded; ties by dice."""
    load = min(own.running[node] for node in nodes)
    return own.dice.choice([node for node in nodes if own.running[node] == load])
