"""Who waits while every node that could answer is at its limit, and who is next when one has room.

Each is due at a point in time: when it came, or later for background work, or earlier on a node that still
holds most of its prompt (that would be computed again anywhere else, and may be evicted while it waits).
So the order is fair within bounds, whatever keeps coming: of one tenant, nobody is overtaken by what came
more than `later + earlier` seconds after it. That says which class is next, interactive or background; within
a class the tenants take turns (`turns`), and where the line is full, one that has few there takes a place of
the one that has most.

Bounded in number here and in time by whoever waits. Pure: `now` is an argument, in seconds of any one clock.
"""

from bisect import bisect_left, insort
from collections import Counter, deque

import msgspec

from gateway.routing.choice import Ask
from gateway.routing.node import Node
from gateway.routing.turns import Turns

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
    is_background: bool = False


class AdmissionQueue:
    """Those who wait, in the order in which they are due."""

    def __init__(self, *, limit: int, wait_s: float) -> None:
        self._limit = limit
        self._wait_s = wait_s
        self._line: list[Waiter] = []
        self._turns = {is_background: Turns[Waiter](_order) for is_background in (False, True)}
        self._count = 0
        self._departures: deque[float] = deque(maxlen=_DEPARTURES)

    def __len__(self) -> int:
        return len(self._line)

    def add(self, ask: Ask, *, is_background: bool, now: float) -> Waiter | None:
        """Stand in line; None: there is no place left (see `to_displace`)."""
        if len(self._line) >= self._limit:
            return None
        self._count += 1
        due = self._due(is_background=is_background, now=now)
        waiter = Waiter(ask, due, self._count, is_background)
        insort(self._line, waiter, key=_order)
        self._turns[is_background].add(ask.tenant, waiter)
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """It left, for whatever reason; it need not stand there any more."""
        if self._turns[waiter.is_background].remove(waiter.ask.tenant, waiter):
            del self._line[bisect_left(self._line, _order(waiter), key=_order)]

    def admitted(self, waiter: Waiter, *, now: float) -> None:
        """It got its place on a node."""
        self._turns[waiter.is_background].went(waiter.ask.tenant)
        self.remove(waiter)
        self._departures.append(now)

    def next_for(self, node: Node) -> Waiter | None:
        """Who goes next to this node; None: nobody here could."""
        if (found := self._soonest(self._line, node)) is None:
            return None
        turns = self._turns[found[0].is_background]
        return found[0] if len(turns) == 1 else turns.next(lambda line: self._soonest(line, node))

    def to_displace(self, tenant: str) -> Waiter | None:
        """Who gives its place in a full line to a newcomer of that tenant: the last of who has most there.

        None: nobody has two more there than that tenant, so the newcomer is refused.
        """
        counts = Counter[str]()
        for turns in self._turns.values():
            counts.update({name: len(line) for name, line in turns.lines()})
        if len(self._line) < self._limit or not counts:
            return None
        ((most, count),) = counts.most_common(1)
        if count < counts[tenant] + 2:
            return None
        return (self._turns[True].of(most) or self._turns[False].of(most))[-1]

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

    def _soonest(self, line: list[Waiter], node: Node) -> tuple[Waiter, bool] | None:
        """Who of a line is due first on a node, and whether its prompt is resident there."""
        found, soonest = None, float("inf")
        earlier = _EARLIER * self._wait_s
        for waiter in line:
            if waiter.due - earlier >= soonest:
                break
            if not _could_go(waiter.ask, node):
                continue
            is_resident = _is_resident(waiter.ask, node)
            due = waiter.due - earlier if is_resident else waiter.due
            if due < soonest:
                found, soonest = (waiter, is_resident), due
        return found

    def _due(self, *, is_background: bool, now: float) -> float:
        return now + (_LATER * self._wait_s if is_background else 0.0)


def _order(waiter: Waiter) -> tuple[float, int]:
    return waiter.due, waiter.number


def _could_go(ask: Ask, node: Node) -> bool:
    return ask.model in node.models and node.id not in ask.excluded


def _is_resident(ask: Ask, node: Node) -> bool:
    held = ask.held.get(node.id)
    return held is not None and 2 * held.expected >= ask.prompt_tokens
