"""Policies that hash a key: consistent hashing, with and without bounded load, by session or by prefix.

And the table that a consistent hash stands in for: sessions stick to the node that had fewest of them.
"""

from bisect import bisect
from collections import OrderedDict

import xxhash

from bench.fleet.policy import Own, Sight
from bench.fleet.prompt import Request

_VNODES = 160


class ConsistentHash(Own):
    """A ring of 160 virtual nodes each; what was the dead node's goes to the next on the ring."""

    def __init__(self, sight: Sight, replica: int) -> None:
        super().__init__(sight, replica)
        points = [(_hash(f"{node}-{v}"), node) for node in range(self.count) for v in range(_VNODES)]
        points.sort()
        self._points = [point for point, _ in points]
        self._owners = [node for _, node in points]

    def choose(self, request: Request, now: float) -> int:
        """The key's node."""
        return self.send(self._walk(self.key(request), self.able(request)))

    def key(self, request: Request) -> int:
        """The session, or the whole prompt without one."""
        return request.key

    def _walk(self, key: int, able: list[int]) -> int:
        limit = self.bound_for(able)
        at = bisect(self._points, _hash(str(key)))
        owners = self._owners
        for step in range(len(owners)):
            node = owners[(at + step) % len(owners)]
            if self.running[node] < limit and (able is self.all or node in able):
                return node
        return min(able, key=self.running.__getitem__)

    def bound_for(self, able: list[int]) -> float:
        """How many requests a node may have to get another: any number."""
        return float("inf")


class BoundedHash(ConsistentHash):
    """The same under a bound on load: 1.25 times the mean (Mirrokni, Thorup and Zadimoghaddam)."""

    factor = 1.25

    def bound_for(self, able: list[int]) -> float:
        """The bound for one more request."""
        return self.factor * (sum(self.running) + 1) / len(able)


class PrefixHash(ConsistentHash):
    """SMG's `prefix_hash`: the first 256 tokens decide, under 1.25 times the mean and 10 more."""

    def key(self, request: Request) -> int:
        """The first extent of a prompt: no persona is shorter than 256 tokens."""
        return request.prompt.extents[0][0]

    def bound_for(self, able: list[int]) -> float:
        """The bound for one more request."""
        return max(1.25 * (sum(self.running) + 1) / len(able), sum(self.running) / len(able) + 10)


class Sticky(Own):
    """vllm-router's `sticky_least_loaded`: a new session to the node with fewest, then always there."""

    idle_s = 7200.0

    def __init__(self, sight: Sight, replica: int) -> None:
        super().__init__(sight, replica)
        self._homes: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._sessions = [0] * self.count

    def choose(self, request: Request, now: float) -> int:
        """The session's node while it is up."""
        while self._homes:
            oldest, (node, at) = next(iter(self._homes.items()))
            if now - at <= self.idle_s:
                break
            del self._homes[oldest]
            self._sessions[node] -= 1
        able = self.able(request)
        home = self._homes.pop(request.key, None)
        if home is not None:
            self._sessions[home[0]] -= 1
        node = home[0] if home is not None and home[0] in able else self._emptiest(request.key, able)
        self._homes[request.key] = (node, now)
        self._sessions[node] += 1
        return self.send(node)

    def _emptiest(self, key: int, able: list[int]) -> int:
        return min(able, key=lambda node: (self._sessions[node], _hash(f"{key}-{node}")))


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())
