"""Waiting for one's turn: those of this process who want to write the same conversation.

The store keeps the line across processes, in the order in which it heard of them. Two things are left to
do here: requests of one process reach the store in the order in which they arrived, although each goes
there on a connection of its own; and a turn that ends in this process wakes the next one at once, instead
of at its next look.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from history.conversation import ConversationKey

_LONGEST_LOOK_S = 0.5
_LOOK_PER_PLACE_S = 0.02


class WaitingLine:
    """Who waits, by conversation. Nothing is kept of a conversation that nobody waits for."""

    def __init__(self) -> None:
        self._arrivals: dict[ConversationKey, tuple[asyncio.Lock, int]] = {}
        self._waiting: dict[ConversationKey, dict[str, tuple[int, asyncio.Event]]] = {}

    @contextlib.asynccontextmanager
    async def arriving(self, key: ConversationKey) -> AsyncIterator[None]:
        """One at a time, first come first served: hold this while the store is told for the first time."""
        lock, users = self._arrivals.get(key, (asyncio.Lock(), 0))
        self._arrivals[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._arrivals[key]
            if users == 1:
                del self._arrivals[key]
            else:
                self._arrivals[key] = (lock, users - 1)

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
