"""One dialogue as it is listened to: its sizes all the way, its words of the last turns only."""

from collections import deque
from typing import Protocol

import msgspec

from history.conversation import Memory, Turn
from history.memory import block
from history.message import role_of
from history.sketch import Sized, Sketch, estimate, persona_tokens, sized, sketch

KEPT_TURNS = 600
"""Turns whose words are kept, while the dialogue is looked at."""


class Counter(Protocol):
    """Counts tokens as a model does."""

    async def message(self, message: bytes) -> int:
        """Tokens that a message takes in a prompt."""


class Talk(msgspec.Struct, frozen=True):
    """A dialogue that was listened to."""

    sketch: Sketch
    persona: bytes
    """The system message as JSON; empty: there is none."""
    turns: tuple[Turn, ...]
    """The last of them."""
    measured: int
    """Turns whose tokens the engine had told."""


class Listener:
    """Takes a dialogue turn by turn, in bounded memory."""

    def __init__(self, *, persona: bytes, character: str, memories: tuple[Memory, ...] = ()) -> None:
        self._persona = persona
        self._character = character
        self._summary = estimate(block(memories[-1]).encode()) if memories else 0
        self._first: Turn | None = None
        self._sizes: list[Sized] = []
        self.last: deque[Turn] = deque(maxlen=KEPT_TURNS)

    @property
    def turn_count(self) -> int:
        """How many turns have come."""
        return len(self._sizes)

    def take(self, turn: Turn, size: Sized | None = None) -> None:
        """The next turn; `size`, where it was counted."""
        self._first = self._first or turn
        self._sizes.append(size or sized(turn))
        self.last.append(turn)

    async def counted_persona(self, counter: Counter | None) -> int | None:
        """The persona's tokens by a node's count; None where the engine's usage or its length must do."""
        if counter is None or not self._persona or (self._first and self._first.reply.prompt_tokens):
            return None
        return await counter.message(self._persona)

    def talk(self, persona_size: int | None = None) -> Talk:
        """All of it."""
        made = sketch(
            self._sizes,
            persona=persona_tokens(self._persona, self._first) if persona_size is None else persona_size,
            persona_text=self._persona,
            character=self._character,
            summary=self._summary,
        )
        return Talk(made, self._persona, tuple(self.last), sum(size.is_measured for size in self._sizes))


def answer_of(turn: Turn) -> int:
    """Which of a turn's messages is its last answer; -1: none."""
    roles = [role_of(message) for message in turn.messages]
    return len(roles) - 1 - roles[::-1].index("assistant") if "assistant" in roles else -1
