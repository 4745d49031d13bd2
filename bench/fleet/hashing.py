"""Policies that hash a key: consistent hashing, with and without bounded load, by session or by prefix.

And the table that a consistent hash stands in for: sessions stick to the node that had fewest of them.
"""

from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable

import xxhash

from bench.fleet.policy import Own, Replica, Sight
from bench.fleet.prompt import Request

_VNODES = 160
_FACTOR = 1.25
_IDLE_S = 7200.0


def consistent_hash(sight: Sight, replica: int) -> Replica:
    """By session, whatever the load."""
    own = Own(sight, replica)
    return Replica(own, Ring(own, _session, lambda _total, _nodes: float("inf")).pick)


def bounded_hash(sight: Sight, replica: int) -> Replica:
    """By session, at most 1.25 times the mean load (Mirrokni, Thorup and Zadimoghaddam 2018)."""
    own = Own(sight, replica)
    return Replica(own, Ring(own, _session, lambda total, nodes: _FACTOR * (total + 1) / nodes).pick)


def prefix_hash(sight: Sight, replica: int) -> Replica:
    """SMG's `prefix_hash`: the first 256 tokens decide, at most 1.25 times the mean load or 10 more."""
    own = Own(sight, replica)
    ring = Ring(own, _prefix, lambda total, nodes: max(_FACTOR * (total + 1) / nodes, total / nodes + 10))
    return Replica(own, ring.pick)


def sticky(sight: Sight, replica: int) -> Replica:
    """vllm-router's `sticky_least_loaded`."""
    own = Own(sight, replica)
    return Replica(own, Homes(own).pick)


class Ring:
    """160 virtual nodes each; what a node cannot take goes to the next on the ring."""

    def __init__(self, own: Own, key: Callable[[Request], int], bound: Callable[[int, int], float]) -> None:
        self._own = own
        self._key = key
        self._bound = bound
        points = sorted((_hash(f"{node}-{v}"), node) for node in range(own.count) for v in range(_VNODES))
        self._points = [point for point, _ in points]
        self._owners = [node for _, node in points]

    def pick(self, request: Request, able: list[int], _: float) -> int:
        """The first node from the key on that is able and within the bound."""
        own, owners = self._own, self._owners
        limit = self._bound(sum(own.running), len(able))
        at = bisect(self._points, _hash(str(self._key(request))))
        for step in range(len(owners)):
            node = owners[(at + step) % len(owners)]
            if own.running[node] < limit and (able is own.all or node in able):
                return node
        return min(able, key=own.running.__getitem__)


class Homes:
    """A new session goes to the node that has fewest, and stays until it was idle for two hours."""

    def __init__(self, own: Own) -> None:
        self._homes: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._sessions = [0] * own.count

    def pick(self, request: Request, able: list[int], now: float) -> int:
        """The session's node while it is up."""
        self._expire(now)
        home = self._homes.pop(request.key, None)
        if home is not None:
            self._sessions[home[0]] -= 1
        node = home[0] if home is not None and home[0] in able else self._emptiest(request.key, able)
        self._homes[request.key] = (node, now)
        self._sessions[node] += 1
        return node

    def _expire(self, now: float) -> None:
        while self._homes:
            oldest, (node, at) = next(iter(self._homes.items()))
            if now - at <= _IDLE_S:
                break
            del self._homes[oldest]
            self._sessions[node] -= 1

    def _emptiest(self, key: int, able: list[int]) -> int:
        return min(able, key=lambda node: (self._sessions[node], _hash(f"{key}-{node}")))


def _session(request: Request) -> int:
    return request.key


def _prefix(request: Request) -> int:
    """The first extent: no persona and no system prompt here is shorter than 256 tokens."""
    return request.prompt.extents[0][0]


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())
