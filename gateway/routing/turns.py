"""Whose turn it is among the tenants that wait in one class: however many each has there.

Start-time fair queueing (Goyal, Vin and Cheng 1997) with a turn for each request. A tenant's next turn is one
after its last, or now, whichever is later; `_now` goes on by 1/m with every request that goes while m tenants
wait. So each of m tenants gets every m-th place, and one that comes late gets no more than those that were
there: nobody saves turns up, and nobody loses any.

A tenant whose request has its prompt on the node that is free comes one turn earlier there, no more: its next
one stands that much behind. O(log n) to come and to go; to choose, as many tenants as `_LOOKED_AT`, beside
those who cannot go to that node at all.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOKED_AT = 32
"""Tenants whose turn is next, among whom one with its prompt there is looked for."""

Best = Callable[[list[T]], tuple[T, bool] | None]
"""Of one tenant's requests, who goes first and whether it has its prompt there; None: none can go."""


class Turns(Generic[T]):
    """The requests that wait, by tenant, each tenant's in the order that `key` gives."""

    def __init__(self, key: Callable[[T], tuple[float, int]]) -> None:
        self._key = key
        self._lines: dict[str, list[T]] = {}
        self._past: OrderedDict[str, float] = OrderedDict()
        """Of those that wait no more, and may come back before their next turn: the latest at the end."""
        self._order: list[tuple[float, int, str]] = []
        """Those that wait, by their turn, and in the order in which they got it."""
        self._places: dict[str, tuple[float, int, str]] = {}
        self._count = 0
        self._now = 0.0

    def __len__(self) -> int:
        """Tenants that wait."""
        return len(self._lines)

    def of(self, tenant: str) -> list[T]:
        """What a tenant has waiting."""
        return self._lines.get(tenant, [])

    def lines(self) -> Iterator[tuple[str, list[T]]]:
        """Every tenant that waits, with what it has."""
        yield from self._lines.items()

    def add(self, tenant: str, waiter: T) -> None:
        """One more waits."""
        if (line := self._lines.get(tenant)) is None:
            line = self._lines[tenant] = []
            self._put(tenant, max(self._now, self._past.pop(tenant, 0.0)))
        insort(line, waiter, key=self._key)

    def remove(self, tenant: str, waiter: T) -> bool:
        """One waits no more; whether it did."""
        line = self._lines.get(tenant, [])
        at = bisect_left(line, self._key(waiter), key=self._key)
        if at >= len(line) or line[at] is not waiter:
            return False
        del line[at]
        if not line:
            del self._lines[tenant]
            self._past[tenant] = self._taken_out(tenant)
            self._forget()
        return True

    def went(self, tenant: str) -> None:
        """A request of a tenant that waits has got its place; before it is removed."""
        turn = self._taken_out(tenant)
        self._now = max(self._now + 1 / len(self._lines), turn)
        self._put(tenant, turn + 1)

    def next(self, best: Best[T]) -> T | None:
        """Who goes; None: nobody can."""
        found: T | None = None
        soonest, seen = float("inf"), 0
        for turn, _, tenant in self._order:
            if turn - 1 >= soonest or seen >= _LOOKED_AT:
                break
            if (first := best(self._lines[tenant])) is None:
                continue
            seen += 1
            waiter, is_resident = first
            if turn - is_resident < soonest:
                found, soonest = waiter, turn - is_resident
        return found

    def _put(self, tenant: str, turn: float) -> None:
        self._count += 1
        self._places[tenant] = place = (turn, self._count, tenant)
        insort(self._order, place)

    def _taken_out(self, tenant: str) -> float:
        place = self._places.pop(tenant)
        del self._order[bisect_left(self._order, place)]
        return place[0]

    def _forget(self) -> None:
        """A turn that is over is like none, so that about as many are kept as tenants went lately."""
        if not self._lines:
            self._past.clear()
            self._now = 0.0
        while self._past and next(iter(self._past.values())) <= self._now:
            self._past.popitem(last=False)
