"""Which prefixes we placed on which node, when, and how many tokens they were.

The gateway dispatched every turn itself, so this is a good index of the nodes' caches without any event
from them. Least recently used entries go first; memory is capped by the number of entries.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import msgspec


class Placement(msgspec.Struct, frozen=True):
    """A node held this many tokens of the prefix at that time (Unix seconds)."""

    node: str
    tokens: int
    at: float


class Ledger:
    """Prefix link → placements, at most `holders` nodes each (the newest)."""

    def __init__(self, *, capacity: int = 200_000, holders: int = 3) -> None:
        self._capacity = capacity
        self._holders = holders
        self._placements: OrderedDict[bytes, tuple[Placement, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._placements)

    def note(self, link: bytes, placement: Placement) -> None:
        """Remember that a prefix now lies on a node."""
        others = (one for one in self._placements.get(link, ()) if one.node != placement.node)
        self._placements[link] = (placement, *others)[: self._holders]
        self._placements.move_to_end(link)
        if len(self._placements) > self._capacity:
            self._placements.popitem(last=False)

    def placements(self, links: Iterable[bytes]) -> Iterator[Placement]:
        """What lies where of these prefixes, in their order; of each the newest first."""
        for link in links:
            yield from self._placements.get(link, ())
