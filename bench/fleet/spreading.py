"""Policies that look at load only: in turn, and the least loaded."""

from bench.fleet.policy import Own, Replica, Sight
from bench.fleet.prompt import Request

_MEAN_PREFILL = 1024
_THROUGHPUT = 2000.0


def round_robin(sight: Sight, replica: int) -> Replica:
    """One node after the other."""
    turns = iter(range(replica, 1 << 62))
    return Replica(Own(sight, replica), lambda _, able, __: able[next(turns) % len(able)])


def least_load(sight: Sight, replica: int) -> Replica:
    """The smallest expected wait."""
    own = Own(sight, replica)
    return Replica(own, LeastLoad(own).pick)


class LeastLoad:
    """The smallest expected wait, as SMG's `least_load` has it for nodes that report only their queue.

    (waiting * mean prompt + tokens sent since the last poll) / throughput + 0.15 * k / (1 - k)
    """

    def __init__(self, own: Own) -> None:
        self._own = own
        self._sent = [0] * own.count
        self._polls = [-1] * own.count

    def pick(self, request: Request, able: list[int], now: float) -> int:
        """The shortest wait; ties by dice."""
        best = min(able, key=lambda node: (self._seconds(node, now), self._own.dice.random()))
        self._sent[best] += request.prompt.tokens
        return best

    def _seconds(self, node: int, now: float) -> float:
        seen = self._own.sight.seen(node, now)
        if seen.poll != self._polls[node]:
            self._polls[node] = seen.poll
            self._sent[node] = 0
        usage = min(seen.kv_usage, 0.99)
        return (seen.waiting * _MEAN_PREFILL + self._sent[node]) / _THROUGHPUT + 0.15 * usage / (1 - usage)
