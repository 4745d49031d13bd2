"""How long people pause between two messages: a histogram that forgets. Pure.

With G the share of pauses up to a time, two things follow from it. `share_beyond(t)` = 1 - G(t) is the
chance that a conversation has not spoken again after t seconds. `area(t)`, the integral of that from 0 to t,
says how many conversations spoke within the last t seconds, up to a factor that is the same for every t (of a
renewal process, the mean pause divides it): how much of a least-recently-used cache they hold.
"""

import math
from bisect import bisect_right

_SHORTEST_S = 0.01
_GROWTH = 1.25
_BUCKETS = 96
"""To about half a year."""
_HALVED_AFTER = 20_000


def _edge(bucket: int) -> float:
    return _SHORTEST_S * _GROWTH**bucket


class Gaps:
    """Pauses in seconds, in buckets that grow by a quarter; within one they count as spread evenly."""

    __slots__ = ("_areas", "_beyond", "_is_stale", "_weights", "count", "weight")

    def __init__(self) -> None:
        self._weights = [0.0] * _BUCKETS
        self.count = 0
        """Of all that were ever seen."""
        self.weight = 0.0
        """Of those that still count: the newest ones fully, older ones less."""
        self._beyond: list[float] = []
        self._areas: list[float] = []
        self._is_stale = True

    def add(self, seconds: float) -> None:
        """One pause more. Below zero, by a clock that was set back, it counts as none."""
        place = int(math.log(max(seconds, _SHORTEST_S) / _SHORTEST_S, _GROWTH))
        self._weights[min(place, _BUCKETS - 1)] += 1.0
        self.count += 1
        self.weight += 1.0
        self._is_stale = True
        if self.weight >= 2 * _HALVED_AFTER:
            self._weights = [one / 2 for one in self._weights]
            self.weight /= 2

    def share_beyond(self, seconds: float) -> float:
        """The share of pauses that last longer; 0 where none was seen."""
        self._reckon()
        place, within = self._place(seconds)
        return self._beyond[place] + (self._beyond[place + 1] - self._beyond[place]) * within

    def area(self, seconds: float) -> float:
        """The integral of `share_beyond` from 0, in seconds."""
        self._reckon()
        place, within = self._place(seconds)
        return self._areas[place] + (self._areas[place + 1] - self._areas[place]) * within

    def time_of(self, area: float) -> float:
        """The seconds at which `area` reaches that much; infinite where it never does."""
        self._reckon()
        areas = self._areas
        high = bisect_right(areas, area)
        if high == len(areas):
            return math.inf
        low = high - 1
        start = 0.0 if low == 0 else _edge(low)
        within = (area - areas[low]) / (areas[high] - areas[low])
        return start + (_edge(high) - start) * within

    def _place(self, seconds: float) -> tuple[int, float]:
        """The bucket, and how far in it."""
        if seconds >= _edge(_BUCKETS):
            return _BUCKETS - 1, 1.0
        place = max(0, int(math.log(max(seconds, _SHORTEST_S) / _SHORTEST_S, _GROWTH)))
        start = 0.0 if place == 0 else _edge(place)
        return place, min(1.0, max(0.0, (seconds - start) / (_edge(place + 1) - start)))

    def _reckon(self) -> None:
        if not self._is_stale:
            return
        total, below = max(self.weight, 1e-9), 0.0
        self._beyond, self._areas = [min(1.0, self.weight)], [0.0]
        for place, weight in enumerate(self._weights):
            below += weight
            self._beyond.append(max(0.0, (self.weight - below) / total))
            start = 0.0 if place == 0 else _edge(place)
            width = _edge(place + 1) - start
            self._areas.append(self._areas[-1] + width * (self._beyond[-2] + self._beyond[-1]) / 2)
        self._is_stale = False
