"""A response's body taken as a whole, up to a bound."""

from gateway.errors import NodeBroke

MAX_BODY = 64 * 1024 * 1024


class BodySink:
    """Collects what arrives. Raises `NodeBroke` beyond the bound."""

    def __init__(self, *, limit: int = MAX_BODY) -> None:
        self._pieces: list[bytes] = []
        self._left = limit

    def feed(self, data: bytes) -> None:
        """One or several pieces of body."""
        self._left -= len(data)
        if self._left < 0:
            raise NodeBroke("the node's answer is too large")
        self._pieces.append(data)

    def value(self) -> bytes:
        """All of it."""
        return b"".join(self._pieces)
