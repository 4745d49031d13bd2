"""What a file to be imported says, line by line, whichever format it has. Pure.

A parser turns numbered lines into events, lazily: a beginning for each dialogue, then what was said in it.
A line that makes no sense is an event too, so that all of them can be named before anything is written.
"""

from collections.abc import Iterable, Iterator

import msgspec

from history.beginning import Beginning
from history.conversation import Memory
from history.errors import InvalidMessages
from history.grouping import Group, Grouped, Said
from history.ports import Branch

Line = tuple[int, bytes]
"""A line and its number, from 1."""


class Start(msgspec.Struct, frozen=True):
    """A dialogue begins."""

    seed: bytes
    """The same for the same dialogue: its id is made of it, unless it has one."""
    beginning: Beginning
    line: int
    id: str = ""
    memories: tuple[Memory, ...] = ()
    cut: int | None = None
    shows: int = 0
    updated_at: float = 0.0
    """Unix seconds; 0: nobody knows."""


class Utterance(msgspec.Struct, frozen=True):
    """Somebody says something."""

    said: Said
    line: int


class Whole(msgspec.Struct, frozen=True):
    """A turn, complete, and what somebody thinks of its items."""

    group: Grouped
    line: int
    ratings: tuple[tuple[str, bytes], ...] = ()


class Replaced(msgspec.Struct, frozen=True):
    """A branch, complete; those of a dialogue come behind its turns, in their order."""

    branch: Branch
    line: int
    ratings: tuple[tuple[str, bytes], ...] = ()


class Wrong(msgspec.Struct, frozen=True):
    """A line that makes no sense."""

    line: int
    reason: str


Event = Start | Utterance | Whole | Replaced | Wrong


def grouped(events: Iterable[Event]) -> Iterator[Start | Whole | Replaced | Wrong]:
    """The same with turns in the place of what was said."""
    group, line = Group(), 0
    for event in events:
        if isinstance(event, Wrong):
            yield event
            continue
        if isinstance(event, Utterance) and not group.ends_before(event.said.message):
            line = line if group.messages else event.line
        elif group.messages:
            yield Whole(group.closed(), line)
            group, line = Group(), event.line
        if not isinstance(event, Utterance):
            yield event
            continue
        try:
            group.add(event.said)
        except InvalidMessages as error:
            yield Wrong(event.line, error.reason)
    if group.messages:
        yield Whole(group.closed(), line)
