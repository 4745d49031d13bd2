"""How much a client may send, and how long it may take, before there is a request to serve.

httptools keeps the piece of a header that has come until the rest of it is there, and tells nobody: so
bytes are counted as they arrive. What counts are those since something last came of them, the headers'
end or a piece of body; so an endless trailer behind a chunked body is bounded as well. A head that comes
in one segment, as nearly all do, costs two additions here and no timer.
"""

import asyncio
from collections.abc import Callable, Iterable

from gateway.errors import HeadTooLarge

MAX_HEAD = 64 * 1024
HEAD_WITHIN_S = 20.0
_SEPARATORS = 4
"""Bytes of a header line that are neither name nor value."""


class HeadWatch:
    """One connection's heads, one after the other. `on_late` is called when one takes too long."""

    __slots__ = (
        "_has_begun",
        "_in_head",
        "_is_moving",
        "_loop",
        "_on_late",
        "_piece",
        "_quiet",
        "_timer",
        "within_s",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_late: Callable[[], None], *, within_s: float
    ) -> None:
        self._loop = loop
        self._on_late = on_late
        self.within_s = within_s
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._has_begun = False
        self._is_moving = False
        self._piece = 0
        self._quiet = 0
        """Bytes of the pieces before this one since something came of them."""

    @property
    def is_within(self) -> bool:
        """Whether a head has begun and is not complete."""
        return self._in_head and self._has_begun

    def piece(self, size: int) -> None:
        """A segment of so many bytes is going to be parsed."""
        self._piece = size
        self._is_moving = False

    def begin(self) -> None:
        """The first byte of a request line."""
        self._has_begun = True

    def complete(self, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The headers are complete. Raises `HeadTooLarge`."""
        # The segments' sum is an upper bound: it is counted only where a body or another request came along.
        if self._quiet + self._piece > MAX_HEAD and _size(url, headers) > MAX_HEAD:
            raise HeadTooLarge(MAX_HEAD)
        self._in_head = False
        self._is_moving = True
        if self._timer is not None:
            self.stop()

    def body(self) -> None:
        """A piece of body came."""
        self._is_moving = True

    def end(self) -> None:
        """The request is complete; the next one may begin."""
        self._in_head = True
        self._has_begun = False
        self._is_moving = True

    def settle(self) -> None:
        """The segment has been parsed. Raises `HeadTooLarge` if too many came to nothing."""
        if self._is_moving:
            self._quiet = 0
        else:
            self._quiet += self._piece
            if self._quiet > MAX_HEAD:
                raise HeadTooLarge(MAX_HEAD)
        if self._in_head and self._timer is None and (self._has_begun or not self._is_moving):
            self.start()

    def start(self) -> None:
        """Give the head its time, from now on."""
        self._timer = self._loop.call_later(self.within_s, self._late)

    def stop(self) -> None:
        """Nothing is waited for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        self._on_late()


def _size(url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + _SEPARATORS for name, value in headers)
