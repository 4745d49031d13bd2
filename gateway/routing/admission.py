"""Who waits while every node that could answer is at its limit, and who is next when one has room.

Each is due at a point in time: when it came, or later for background work, or earlier on a node that still
holds most of its prompt (that would be computed again anywhere else, and may be evicted while it waits).
So the order is fair within bounds, whatever keeps coming: nobody is overtaken by what came more than
`later + earlier` seconds after it.

Bounded in number here and in time by whoever waits. Pure: `now` is an argument, in seconds of any one clock.
"""

from bisect import bisect_left, insort
from collections import deque

import msgspec

from gateway.routing.choice import Ask
from gateway.routing.node import Node

_LATER = 0.5
"""Of `wait_s`: what background work stands behind, so that it is still served before it is given up."""
_EARLIER = 0.25
"""Of `wait_s`: what a prompt that is resident is put ahead on the node that has it."""
_DEPARTURES = 64
_SOONEST_S = 1.0


class Waiter(msgspec.Struct, frozen=True, eq=False):
    """One request that waits. `number` says in which order they came."""

    ask: Ask
    due: float
    number: int


class AdmissionQueue:
    """Those who wait, in the order in which they are due."""

    def __init__(self, *, limit: int, wait_s: float) -> None:
        self._limit = limit
        self._wait_s = wait_s
        self._line: list[Waiter] = []
        self._count = 0
        self._departures: deque[float] = deque(maxlen=_DEPARTURES)

    def __len__(self) -> int:
        return len(self._line)

    def add(self, ask: Ask, *, is_background: bool, now: float) -> Waiter | None:
        """Stand in line; None: there is no place left."""
        if len(self._line) >= self._limit:
            return None
        self._count += 1
        waiter = Waiter(ask, self._due(is_background=is_background, now=now), self._count)
        insort(self._line, waiter, key=_order)
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """It left, for whatever reason; it need not stand there any more."""
        at = bisect_left(self._line, _order(waiter), key=_order)
        if at < len(self._line) and self._line[at] is waiter:
            del self._line[at]

    def admitted(self, waiter: Waiter, *, now: float) -> None:
        """It got its place on a node."""
        self.remove(waiter)
        self._departures.append(now)

    def next_for(self, node: Node) -> Waiter | None:
        """Who goes next to this node; None: nobody here could."""
        found, soonest = None, float("inf")
        earlier = _EARLIER * self._wait_s
        for waiter in self._line:
            if waiter.due - earlier >= soonest:
                break
            if not _could_go(waiter.ask, node):
                continue
            due = waiter.due - earlier if _is_resident(waiter.ask, node) else waiter.due
            if due < soonest:
                found, soonest = waiter, due
        return found

    def holds_up(self, ask: Ask, *, is_background: bool, now: float) -> bool:
        """Whether somebody waits who is due before a newcomer and would go wherever it would."""
        due = self._due(is_background=is_background, now=now)
        for waiter in self._line:
            if waiter.due > due:
                return False
            if waiter.ask.model == ask.model and not waiter.ask.excluded:
                return True
        return False

    def retry_after_s(self, now: float) -> float:
        """When all who wait now should have been admitted, at the rate of the last ones."""
        if not self._departures:
            return max(self._wait_s, _SOONEST_S)
        rate = len(self._departures) / max(now - self._departures[0], 0.001)
        return min(max((len(self._line) + 1) / rate, _SOONEST_S), max(self._wait_s, _SOONEST_S))

    def _due(self, *, is_background: bool, now: float) -> float:
        return now + (_LATER * self._wait_s if is_background else 0.0)


def _order(waiter: Waiter) -> tuple[float, int]:
    return waiter.due, waiter.number


def _could_go(ask: Ask, node: Node) -> bool:
    return ask.model in node.models and node.id not in ask.excluded


def _is_resident(ask: Ask, node: Node) -> bool:
    held = ask.held.get(node.id)
    return held is not None and 2 * held.expected >= ask.prompt_tokens
