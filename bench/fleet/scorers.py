"""llm-d's way: scorers weighted 3 for the prefix, 2 for the queue and 2 for KV usage; the highest wins.

`Approximate` takes the prefix from its own list of what it sent (as many blocks a node as it says it has),
`Precise` from the caches themselves, as KV events tell a gateway.
"""

import random

from bench.fleet.policy import Own, Sight
from bench.fleet.prompt import Request
from bench.fleet.radix import Tree


class Approximate(Own):
    """Prefixes as placed, one bounded list per node."""

    def __init__(self, sight: Sight, replica: int) -> None:
        super().__init__(sight, replica)
        self._dice = random.Random(sight.seed * 41 + replica)
        block = sight.nodes[0].card.block
        limit = sight.nodes[0].cache.capacity * block
        self._trees = [Tree(1, block=block, max_tokens=limit) for _ in range(self.count)]

    def choose(self, request: Request, now: float) -> int:
        """The highest score; ties by dice."""
        able = self.able(request)
        seen = [self.sight.seen(node, now) for node in able]
        queues = [one.waiting for one in seen]
        low, width = min(queues), max(queues) - min(queues)
        total = max(1, request.prompt.blocks())
        best, highest = able[0], -1.0
        for node, one in zip(able, seen, strict=True):
            queue = 1 - (one.waiting - low) / width if width else 1.0
            score = 3 * self.matched(request, node) / total + 2 * queue + 2 * (1 - one.kv_usage)
            score += self._dice.random() * 1e-9
            if score > highest:
                best, highest = node, score
        self._trees[best].insert(request.prompt.extents, 0)
        return self.send(best)

    def matched(self, request: Request, node: int) -> int:
        """Blocks of the prompt that a node should have."""
        return self._trees[node].match(request.prompt.extents)[0]

    def lost(self, node: int) -> None:
        """Its list is dropped."""
        super().lost(node)
        self._trees[node].remove(0)


class Precise(Approximate):
    """The same, from events."""

    def matched(self, request: Request, node: int) -> int:
        """Blocks of the prompt that a node has."""
        return self.sight.nodes[node].cache.match(request.prompt.extents)
