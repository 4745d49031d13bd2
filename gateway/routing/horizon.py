"""How long prefixes stay on nodes, learned from what was expected there and what was found. Pure.

One horizon for nodes whose caches are alike: under even load they lose their blocks at the same age, and what
one of them shows need not be learned on each.
"""

from gateway.routing.retention import Gates

_SMALLER = 0.8
_LARGER = 1.05


class Horizon:
    """The age at which a prefix is as likely evicted as not, in seconds; at most the longest assumed."""

    __slots__ = ("_longest_s", "gates", "seconds")

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self.seconds = longest_s
        self.gates = Gates(horizon_s=longest_s)

    @property
    def is_full(self) -> bool:
        """Whether prefixes have been missed: what is computed there then evicts as much."""
        return self.seconds < self._longest_s

    def learned(self, age_s: float, *, was_there: bool) -> None:
        """A prefix of that age was found, or not. Only what surprises teaches."""
        if not was_there and age_s < self.seconds:
            self.seconds = max(age_s, _SMALLER * self.seconds)
        elif was_there and age_s > self.seconds / 2:
            self.seconds = min(self._longest_s, _LARGER * max(age_s, self.seconds))
        else:
            return
        self.gates = Gates(horizon_s=self.seconds)
