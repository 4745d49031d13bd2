"""Policies that look at load only: in turn, and the least loaded."""

import random

from bench.fleet.policy import Own, Sight
from bench.fleet.prompt import Request


class RoundRobin(Own):
    """One node after the other."""

    def __init__(self, sight: Sight, replica: int) -> None:
        super().__init__(sight, replica)
        self._next = replica

    def choose(self, request: Request, now: float) -> int:
        """The next one that is up."""
        able = self.able(request)
        self._next += 1
        return self.send(able[self._next % len(able)])


class LeastLoad(Own):
    """The smallest expected wait, as SMG's `least_load` has it for nodes that report only their queue.

    (waiting * mean prompt + tokens sent since the last poll) / throughput + 0.15 * k / (1 - k)
    """

    mean_prefill = 1024
    throughput = 2000.0

    def __init__(self, sight: Sight, replica: int) -> None:
        super().__init__(sight, replica)
        self._dice = random.Random(sight.seed * 31 + replica)
        self._sent = [0] * self.count
        self._polls = [-1] * self.count

    def choose(self, request: Request, now: float) -> int:
        """The shortest wait; ties by dice."""
        best, least = -1, float("inf")
        for node in self.able(request):
            seconds = self._seconds(node, now)
            if seconds < least or (seconds == least and self._dice.random() < 0.5):
                best, least = node, seconds
        self._sent[best] += request.prompt.tokens
        return self.send(best)

    def _seconds(self, node: int, now: float) -> float:
        seen = self.sight.seen(node, now)
        if seen.poll != self._polls[node]:
            self._polls[node] = seen.poll
            self._sent[node] = 0
        usage = min(seen.kv_usage, 0.99)
        queued = seen.waiting * self.mean_prefill + self._sent[node]
        return queued / self.throughput + 0.15 * usage / (1 - usage)
