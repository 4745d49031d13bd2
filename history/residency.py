"""Whether the KV of a conversation is still where it was put: what the routing knows and dialogues ask."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from history.conversation import Binding


class Retained(msgspec.Struct, frozen=True):
    """For how long the nodes keep a prefix that nobody uses."""

    seconds: float
    is_full: bool
    """Whether prefixes were missed; else the caches have room, and the time is what is assumed."""


class Residency(Protocol):
    """What is known of the nodes' caches."""

    def is_gone(self, binding: Binding) -> bool:
        """Whether the KV that a binding names has surely gone."""

    def retained(self) -> Retained:
        """As of now."""


class Ages:
    """Without knowledge: what is older than so many seconds has gone. `clock`: Unix seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock

    def is_gone(self, binding: Binding) -> bool:
        """Whether it is older."""
        return self._clock() - binding.at > self._seconds

    def retained(self) -> Retained:
        """What is assumed."""
        return Retained(self._seconds, is_full=False)
