"""Waiting for one's turn: those of this process who want to write the same conversation.

The store keeps the line across processes, in the order in which it heard of them. Two things are left to
do here: requests of one process reach the store in the order in which they arrived, although each goes
there on a connection of its own; and a turn that ends in this process wakes the next one at once, instead
of at its next look.
"""

import asyncio
from collections import deque

from history.conversation import ConversationKey

_LONGEST_LOOK_S = 0.5
_LOOK_PER_PLACE_S = 0.02


_Arrivals = dict[ConversationKey, deque[asyncio.Future[None]]]
"""Who has arrived behind whoever is there; nothing where nobody is."""


class WaitingLine:
    """Who waits, by conversation. Nothing is kept of a conversation that nobody waits for."""

    def __init__(self) -> None:
        self._arrivals: _Arrivals = {}
        self._waiting: dict[ConversationKey, dict[str, tuple[int, asyncio.Event]]] = {}

    def arriving(self, key: ConversationKey) -> "Arrival":
        """One at a time, first come first served: hold this while the store is told for the first time."""
        return Arrival(self._arrivals, key)

    async def wait(self, key: ConversationKey, owner: str, position: int) -> None:
        """Until it makes sense to ask the store again: woken, or after a while that grows with the place."""
        event = asyncio.Event()
        line = self._waiting.setdefault(key, {})
        line[owner] = (position, event)
        try:
            async with asyncio.timeout(min(_LONGEST_LOOK_S, _LOOK_PER_PLACE_S * (position + 1))):
                await event.wait()
        except TimeoutError:
            return
        finally:
            line.pop(owner, None)
            if not line:
                self._waiting.pop(key, None)

    def wake(self, key: ConversationKey) -> None:
        """A turn ended: the one who is furthest ahead looks again."""
        if line := self._waiting.get(key):
            _, event = min(line.values(), key=lambda entry: entry[0])
            event.set()


class Arrival:
    """A lock on one conversation that costs nothing where nobody else arrives. Entered once."""

    __slots__ = ("_arrivals", "_key")

    def __init__(self, arrivals: _Arrivals, key: ConversationKey) -> None:
        self._arrivals = arrivals
        self._key = key

    async def __aenter__(self) -> None:
        others = self._arrivals.get(self._key)
        if others is None:
            self._arrivals[self._key] = deque()
            return
        turn = asyncio.get_running_loop().create_future()
        others.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came, and the cancellation with it
                self._let_next_in()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._let_next_in()

    def _let_next_in(self) -> None:
        others = self._arrivals[self._key]
        while others:
            turn = others.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._arrivals[self._key]
