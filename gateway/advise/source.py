"""Where dialogues come from: the door that `friendo advise` listens at."""

from collections.abc import AsyncIterator, Collection
from typing import Protocol

import msgspec

from gateway.advise.talk import Talk
from history.sketch import Sketch


class Heard(msgspec.Struct, frozen=True):
    """One dialogue that was heard, with its words where it has any."""

    place: int
    """The same for the same dialogue of the same source."""
    sketch: Sketch
    talk: Talk | None = None
    progress: int = 1
    """How far the source has been read, in its own measure."""
    wrong: int = 0
    """Lines that could not be read so far."""


class Source(Protocol):
    """Some dialogues."""

    name: str
    """For people."""
    identity: str
    """What makes it the same source as the last time."""
    total: int
    """In the measure of `Heard.progress`; 0: not known."""
    has_words: bool

    def heard(self, known: Collection[int]) -> AsyncIterator[Heard]:
        """The dialogues, without those whose places are known."""
