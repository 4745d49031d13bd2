"""An oracle: it sees caches and queues as they are, and takes what costs everybody the least time.

    wait for what is queued + (1 + requests that wait) * own prefill

Greedy, one request at a time: it knows nothing of what comes. Among nodes within 2 ms it takes the one with room,
then the one whose next block to be evicted has not been used for longest: there a new prefix costs least.
"""

from bench.fleet.policy import Own
from bench.fleet.prompt import Request

_EQUAL_S = 0.002


class Oracle(Own):
    """Knows everything about now."""

    def choose(self, request: Request, now: float) -> int:
        """The least cost."""
        prompt = request.prompt
        best, least = -1, (0, 0.0, 0)
        for index in self.able(request):
            node = self.sight.nodes[index]
            if not node.is_alive:
                continue
            node.settle(now)
            cached = node.cached_tokens(prompt)
            own = node.seconds_for(cached, prompt.tokens - cached)
            seconds = node.wait(now) + (1 + len(node.waiting)) * own
            cost = (round(seconds / _EQUAL_S), node.cache.idle_since(), node.load())
            if best < 0 or cost < least:
                best, least = index, cost
        return self.send(best)
