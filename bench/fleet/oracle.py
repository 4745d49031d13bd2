"""An oracle: it sees caches and queues as they are, and takes what costs everybody the least time.

    wait for what is queued + (1 + requests that wait) * own prefill

Greedy, one request at a time: it knows nothing of what comes. Among nodes within 2 ms it takes the one with
room, then the one whose next block to be evicted has not been used for longest: there a prefix costs least.
"""

from bench.fleet.policy import Own, Replica, Sight
from bench.fleet.prompt import Request

_EQUAL_S = 0.002


def oracle(sight: Sight, replica: int) -> Replica:
    """Knows everything about now."""

    def cost(request: Request, index: int, now: float) -> tuple[int, float, int]:
        node, tokens = sight.nodes[index], request.prompt.tokens
        node.settle(now)
        cached = node.cached_tokens(request.prompt)
        own_s = node.seconds_for(cached, tokens - cached)
        seconds = node.wait(now) + (1 + len(node.waiting)) * own_s
        return round(seconds / _EQUAL_S), node.cache.idle_since(), node.load()

    def pick(request: Request, able: list[int], now: float) -> int:
        alive = [node for node in able if sight.nodes[node].is_alive]
        return min(alive or able, key=lambda node: cost(request, node, now))

    return Replica(Own(sight, replica), pick)
