"""The proposal's ledger: which prefixes lie on which node, from when they are sent, not from when they end.

While a request runs, its blocks are pinned: what it holds is there, whatever its age. Afterwards a mark is as
old as the request's end. The least recently noted links go first.
"""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec


class Mark(msgspec.Struct, gc=False):
    """A node's copy of a prefix."""

    tokens: int
    at: float
    """When a request last used it."""
    running: int = 0
    """Requests under way that hold it."""


class Marks:
    """Link → node → mark."""

    def __init__(self, *, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._marks: OrderedDict[bytes, dict[int, Mark]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._marks)

    def sent(self, link: bytes, node: int, tokens: int, now: float) -> None:
        """A request with this prefix is on its way."""
        self.note(link, node, tokens, now)
        self._marks[link][node].running += 1

    def done(self, link: bytes, node: int, now: float) -> None:
        """It is over; its blocks may be evicted from now on."""
        mark = self._marks.get(link, {}).get(node)
        if mark is not None:
            mark.running -= 1
            mark.at = now

    def note(self, link: bytes, node: int, tokens: int, now: float) -> None:
        """A node has this prefix now."""
        nodes = self._marks.setdefault(link, {})
        mark = nodes.get(node)
        if mark is None:
            nodes[node] = Mark(tokens=tokens, at=now)
        else:
            mark.tokens, mark.at = tokens, now
        self._marks.move_to_end(link)
        if len(self._marks) > self._capacity:
            self._marks.popitem(last=False)

    def of(self, link: bytes) -> Iterator[tuple[int, int, float]]:
        """Nodes with a prefix, its tokens, and when it was last used: plus infinity while it is in use."""
        for node, mark in self._marks.get(link, {}).items():
            yield node, mark.tokens, float("inf") if mark.running else mark.at

    def forget(self, node: int) -> None:
        """A node lost its cache."""
        for nodes in self._marks.values():
            nodes.pop(node, None)
