"""llm-d's way: scorers weighted 3 for the prefix, 2 for the queue and 2 for KV usage; the highest wins.

`approximate` takes the prefix from its own list of what it sent (as many blocks a node as that says it has),
`precise` from the caches themselves, as KV events tell a gateway.
"""

from collections.abc import Callable

from bench.fleet.policy import Own, Replica, Sight
from bench.fleet.prompt import Request
from bench.fleet.radix import Tree

Matched = Callable[[Request, int], int]
"""Blocks of a request's prompt that a node should have."""


def approximate(sight: Sight, replica: int) -> Replica:
    """Prefixes as placed, one bounded list per node."""
    own = Own(sight, replica)
    limit = sight.nodes[0].cache.capacity * own.block
    trees = [Tree(1, block=own.block, max_tokens=limit) for _ in range(own.count)]

    def pick(request: Request, able: list[int], now: float) -> int:
        extents = request.prompt.extents
        node = _highest(own, request, able, now, lambda _, node: trees[node].match(extents)[0])
        trees[node].insert(extents, 0)
        return node

    return Replica(own, pick, lambda node: trees[node].remove(0))


def precise(sight: Sight, replica: int) -> Replica:
    """The same, from events."""
    own = Own(sight, replica)

    def matched(request: Request, node: int) -> int:
        return sight.nodes[node].cache.match(request.prompt.extents)

    return Replica(own, lambda request, able, now: _highest(own, request, able, now, matched))


def _highest(own: Own, request: Request, able: list[int], now: float, matched: Matched) -> int:
    """The highest score; ties by dice."""
    seen = [own.sight.seen(node, now) for node in able]
    queues = [one.waiting for one in seen]
    low, width = min(queues), max(queues) - min(queues)
    total = max(1, request.prompt.blocks())
    best, highest = able[0], -1.0
    for node, one in zip(able, seen, strict=True):
        queue = 1 - (one.waiting - low) / width if width else 1.0
        score = 3 * matched(request, node) / total + 2 * queue + 2 * (1 - one.kv_usage)
        score += own.dice.random() * 1e-9
        if score > highest:
            best, highest = node, score
    return best
