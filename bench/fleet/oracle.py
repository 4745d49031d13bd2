"""An oracle: it sees the caches and the queues as they are, and takes the earliest first token.

Greedy, one request at a time. Among nodes that are equally early it takes the one with room, then the one
whose next block to be evicted has not been used for longest: there a new prefix costs others least.
"""

from bench.fleet.policy import Own
from bench.fleet.prompt import Request

_EQUAL_S = 0.002


class Oracle(Own):
    """Knows everything about now, nothing about later."""

    def choose(self, request: Request, now: float) -> int:
        """The earliest first token."""
        prompt = request.prompt
        best, least = -1, (float("inf"), 0.0, 0)
        for index in self.able(request):
            node = self.sight.nodes[index]
            if not node.is_alive:
                continue
            node.settle(now)
            cached = node.cached_tokens(prompt)
            seconds = node.backlog() + node.seconds_for(cached, prompt.tokens - cached)
            cost = (round(seconds / _EQUAL_S), node.cache.idle_since(), node.load())
            if cost < least or best < 0:
                best, least = index, cost
        return self.send(best)
