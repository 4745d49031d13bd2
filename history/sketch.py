"""A dialogue without its words: how long everything is, and when it was said. Pure.

What advice needs of a dialogue, and all that it keeps: a million turns take 16 MB.
"""

from array import array
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import xxhash

from history.conversation import Turn
from history.message import role_of


class Sketch(msgspec.Struct, frozen=True, array_like=True):
    """One dialogue. The three rows have a number for each turn; they are kept as bytes of machine numbers."""

    persona: int
    """Tokens of the persona."""
    persona_key: int
    """The same for the same persona; 0: there is none."""
    character: str
    asked_row: bytes
    answered_row: bytes
    at_row: bytes
    summary: int = 0
    """Tokens of its newest summary; 0: it has none."""

    @property
    def turn_count(self) -> int:
        """How many turns there are."""
        return len(self.asked_row) // 4

    @property
    def asked(self) -> Sequence[int]:
        """Tokens of each turn before its last answer: the user's message, tools' calls and results."""
        return memoryview(self.asked_row).cast("I")

    @property
    def answered(self) -> Sequence[int]:
        """Tokens of each turn's answer."""
        return memoryview(self.answered_row).cast("I")

    @property
    def at(self) -> Sequence[float]:
        """Unix seconds of each turn's end; 0: nobody knows."""
        return memoryview(self.at_row).cast("d")

    @property
    def has_times(self) -> bool:
        """Whether it is known when each turn was said."""
        return bool(self.at_row) and min(self.at) > 0

    def gaps(self) -> list[float]:
        """Seconds from one turn's end to the next one's, where both are known; never negative."""
        return [max(0.0, late - early) for early, late in pairwise(self.at) if early > 0 and late > 0]


class Sized(msgspec.Struct, frozen=True):
    """The tokens of one turn."""

    asked: int
    answered: int
    at: float = 0.0
    is_measured: bool = False
    """Whether the engine said so; else it is an estimate."""


def sketch(
    turns: Sequence[Sized],
    *,
    persona: int = 0,
    persona_text: bytes = b"",
    character: str = "",
    summary: int = 0,
) -> Sketch:
    """The sketch of a dialogue of these turns. `persona_text` tells whose prefix it shares."""
    return Sketch(
        persona=persona,
        persona_key=xxhash.xxh3_64_intdigest(persona_text) >> 1 if persona_text else 0,
        character=character,
        asked_row=array("I", [one.asked for one in turns]).tobytes(),
        answered_row=array("I", [one.answered for one in turns]).tobytes(),
        at_row=array("d", [one.at for one in turns]).tobytes(),
        summary=summary,
    )


def sized(turn: Turn) -> Sized:
    """What a stored turn adds to a prompt, by the engine's own usage where it is stored.

    Else four bytes of a message's JSON count as a token: its names and quotes stand for what a chat template
    puts around it.
    """
    answer = _last_answer(turn)
    if turn.tokens and turn.reply.completion_tokens:
        answered = min(turn.reply.completion_tokens, turn.tokens)
        return Sized(turn.tokens - answered, answered, turn.at, is_measured=True)
    lengths = [estimate(message) for message in turn.messages]
    answered = lengths[answer] if answer >= 0 else 0
    whole = turn.tokens or sum(lengths)
    if turn.tokens:
        answered = turn.tokens * answered // max(1, sum(lengths))
    return Sized(whole - answered, answered, turn.at, is_measured=bool(turn.tokens))


def persona_tokens(persona: bytes, first: Turn | None) -> int:
    """Tokens of a persona: what the first prompt had beside the first message, else by its length."""
    if first is not None and first.reply.prompt_tokens and first.tokens:
        asked = first.tokens - first.reply.completion_tokens
        if 0 <= asked <= first.reply.prompt_tokens:
            return first.reply.prompt_tokens - asked
    return estimate(persona)


def estimate(message: bytes) -> int:
    """Tokens of a message as it stands in a prompt: four bytes to one, as everywhere in this package."""
    return len(message) // 4


def _last_answer(turn: Turn) -> int:
    """Which message is the answer; -1: none."""
    for at in range(len(turn.messages) - 1, -1, -1):
        if role_of(turn.messages[at]) == "assistant":
            return at
    return -1
