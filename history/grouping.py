"""Messages into turns, where no model answers: appended items, an imported file. Pure, and as lazy as its
input.

A turn begins at a user's message, unless the turn so far has no answer.
"""

from collections.abc import Iterable, Iterator

import msgspec

from history.conversation import Turn
from history.errors import InvalidMessages
from history.items import has_answer, status_of
from history.message import Message, digests

TOOL_ROLES = frozenset({"tool", "function"})
_VERSION_STEP_S = 1e-6
"""Versions of one moment are kept in their order by this."""


class Said(msgspec.Struct, frozen=True):
    """One message, and the other answers that were given in its place."""

    message: Message
    at: float = 0.0
    """Unix seconds; 0: nobody knows."""
    before: tuple[Message, ...] = ()
    """The other answers that are older than this one, oldest first."""
    behind: tuple[Message, ...] = ()
    """Those that are newer."""


class Grouped(msgspec.Struct, frozen=True):
    """A turn, and the turns that might stand in its place."""

    turn: Turn
    versions: tuple[Turn, ...] = ()


def continues(last: Turn | None, first: Message) -> bool:
    """Whether a message belongs to the turn that is already there.

    Raises `InvalidMessages` for a tool's result that nothing waits for.
    """
    if first.role in TOOL_ROLES:
        if last is None or last.status != "open":
            raise InvalidMessages("no tool call of this conversation is waiting for a result")
        return True
    return last is not None and last.status == "incomplete" and not has_answer(last)


def turns_of(said: Iterable[Said], head: Turn | None = None) -> Iterator[Grouped]:
    """The turns of these messages; the first goes on with `head`, if there is one.

    Raises `InvalidMessages` for a tool's result without its call.
    """
    group = Group(head)
    for one in said:
        if group.ends_before(one.message):
            yield group.closed()
            group = Group()
        group.add(one)
    if group.messages:
        yield group.closed()


class Group:
    """A turn that is still being said, perhaps one that was begun before."""

    def __init__(self, head: Turn | None = None) -> None:
        self.messages = head.messages if head is not None else ()
        self.digests = head.digests if head is not None else b""
        self.is_answered = head is not None and has_answer(head)
        self._mark = head.mark if head is not None else b""
        self._tailed = head.tailed if head is not None else None
        self._calls = head is not None and head.status == "open"
        self._at = head.at if head is not None else 0.0
        self._versions: list[Turn] = []

    def ends_before(self, message: Message) -> bool:
        """Whether this message begins the next turn."""
        return self.is_answered and message.role == "user"

    def add(self, said: Said) -> None:
        """One more message. Raises `InvalidMessages` for a tool's result without its call."""
        message = said.message
        if message.role in TOOL_ROLES and not self._calls:
            raise InvalidMessages("a tool's result stands behind the call that it answers")
        at = said.at + len(said.before) * _VERSION_STEP_S
        for number, other in enumerate(said.before):
            self._versions.append(self._turn(other, said.at + number * _VERSION_STEP_S))
        for number, other in enumerate(said.behind, start=1):
            self._versions.append(self._turn(other, at + number * _VERSION_STEP_S))
        turn = self._turn(message, at if said.before or said.behind else said.at)
        self.messages, self.digests, self._at = turn.messages, turn.digests, max(self._at, turn.at)
        self.is_answered = self.is_answered or message.role == "assistant"
        self._calls = self._calls or message.calls_tools

    def closed(self) -> Grouped:
        """The turn as it was said."""
        turn = Turn(
            messages=self.messages,
            digests=self.digests,
            at=self._at,
            status=status_of(self.messages),
            mark=self._mark,
            tailed=self._tailed,
        )
        return Grouped(turn=turn, versions=tuple(self._versions))

    def _turn(self, last: Message, at: float) -> Turn:
        messages = (*self.messages, last.json)
        return Turn(
            messages=messages,
            digests=self.digests + digests([last]),
            at=at,
            status=status_of(messages),
            tailed=self._tailed,
        )
