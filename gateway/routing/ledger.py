"""Which prefixes lie on which node, with how many tokens, and when they were last used.

The gateway dispatches every prompt itself, so this is a good index of the nodes' caches without any event
from them. A prefix is noted when its request is sent: while that runs its blocks are pinned, so it is there
whatever its age; afterwards it is as old as the request's end. Memory is capped by the number of marks; the
links that were sent or noted longest ago go first.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import msgspec


class Mark(msgspec.Struct, gc=False):
    """A node's copy of a prefix."""

    tokens: int
    at: float
    """When a request last used it, in steady seconds; minus infinity while the first one is on its way."""
    running: int = 0
    """Requests under way that hold it."""


Found = tuple[str, int, float]
"""A node, the tokens of a prefix that lie there, and when they were last used: infinity while they are, minus
infinity while the first request with them is on its way.
"""


class Ledger:
    """Prefix link → node → mark, at most `holders` nodes each (those noted last)."""

    def __init__(self, *, capacity: int = 200_000, holders: int = 64) -> None:
        self._capacity = capacity
        self._holders = holders
        self._marks: OrderedDict[bytes, dict[str, Mark]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Marks kept."""
        return self._count

    def sent(self, link: bytes, node: str, tokens: int) -> None:
        """A request with this prefix is on its way. What an engine has counted before is not overwritten."""
        mark = self._marks.get(link, {}).get(node)
        if mark is None:
            mark = self._put(link, node, tokens, -math.inf)
        else:
            self._marks.move_to_end(link)
        mark.running += 1

    def done(self, link: bytes, node: str, now: float, *, was_computed: bool) -> None:
        """It is over; its blocks may be evicted from now on, if they were ever computed."""
        nodes = self._marks.get(link, {})
        mark = nodes.get(node)
        if mark is None:
            return
        mark.running = max(0, mark.running - 1)
        if was_computed:
            mark.at = now
        elif not mark.running and mark.at == -math.inf:
            del nodes[node]
            self._count -= 1
            if not nodes:
                del self._marks[link]

    def note(self, link: bytes, node: str, tokens: int, now: float) -> None:
        """A node has so many tokens of this prefix now."""
        mark = self._marks.get(link, {}).get(node)
        if mark is None:
            self._put(link, node, tokens, now)
        else:
            mark.tokens, mark.at = tokens, now
            self._marks.move_to_end(link)

    def of(self, link: bytes) -> Iterator[Found]:
        """Where a prefix lies."""
        for node, mark in self._marks.get(link, {}).items():
            is_used = mark.running and mark.at != -math.inf
            yield node, mark.tokens, math.inf if is_used else mark.at

    def each(self, links: Iterable[bytes]) -> Iterator[Found]:
        """Where any of these prefixes lies, in their order."""
        marks = self._marks
        for link in links:
            if link in marks:
                yield from self.of(link)

    def longest(self, links: Sequence[bytes]) -> tuple[int, int]:
        """How many of a prompt's links make the longest prefix that is known, and its tokens."""
        marks = self._marks
        for count in range(len(links), 0, -1):
            if (nodes := marks.get(links[count - 1])) is not None:
                return count, next(reversed(nodes.values())).tokens
        return 0, 0

    def _put(self, link: bytes, node: str, tokens: int, at: float) -> Mark:
        nodes = self._marks.setdefault(link, {})
        mark = nodes[node] = Mark(tokens=tokens, at=at)
        self._count += 1
        if len(nodes) > self._holders:
            del nodes[next(iter(nodes))]
            self._count -= 1
        self._marks.move_to_end(link)
        while self._count > self._capacity:
            _, oldest = self._marks.popitem(last=False)
            self._count -= len(oldest)
        return mark
