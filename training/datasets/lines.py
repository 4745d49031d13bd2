"""What an example is made of: lines that LLaMA-Factory's ShareGPT form can have, in an order it does not
drop.

It takes user's side and model's side in strict alternation, the user's first and the model's last; anything
else is dropped with a warning and exit code 0. Prompts as they are served are not always so: a character
greets first, two messages come in a row, tools answer together. `ordered` mends that. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Role = Literal["user", "assistant", "function", "observation"]

SILENCE = "\u2026"
"""What stands for a user who has said nothing, where the model spoke first or twice in a row."""

_MODEL = frozenset({"assistant", "function"})
_encode = msgspec.json.encode


class Line(msgspec.Struct, frozen=True, gc=False):
    """One message: who, what, and both as the JSON of a row."""

    role: Role
    text: str
    json: bytes

    @property
    def is_model(self) -> bool:
        """Whether the model says it."""
        return self.role in _MODEL


class Example(msgspec.Struct, frozen=True, gc=False):
    """A prompt and its answer: `lines` in order, the last one is what counts.

    With `counts_all`, every answer in it counts.
    """

    lines: tuple[Line, ...]
    system: str = ""
    tools: str = ""
    counts_all: bool = False


class Pair(msgspec.Struct, frozen=True):
    """A prompt that ends on the user's side, and two answers to it."""

    lines: tuple[Line, ...]
    chosen: Line
    rejected: Line
    system: str = ""
    tools: str = ""


def line(role: Role, text: str) -> Line:
    """A line of a text that is clean already."""
    return Line(role, text, b'{"role":"%b","content":%b}' % (role.encode(), _encode(text)))


_SILENT = line("user", SILENCE)


def ordered(lines: Iterable[Line], mends: Counter[str]) -> list[Line]:
    """The lines in strict alternation, the user's side first. What was mended is counted.

    The last line is the last one that came in; which side it is on is the caller's business.
    """
    row: list[Line] = []
    expects_model = False
    for one in lines:
        is_model = one.role in _MODEL
        if is_model is expects_model:
            row.append(one)
            expects_model = not is_model
        elif is_model:
            mends["model_spoke_unasked"] += 1
            row += (_SILENT, one)
            expects_model = False
        else:
            mends["messages_joined"] += 1
            row[-1] = _joined(row[-1], one)
    return row


def is_legal(lines: Sequence[Line], *, ends_with_model: bool = True) -> bool:
    """Whether LLaMA-Factory takes them: strict alternation, and the end on the right side."""
    sides = [one.is_model for one in lines]
    return bool(sides) and sides[-1] is ends_with_model and sides == [at % 2 == 1 for at in range(len(sides))]


def _joined(first: Line, second: Line) -> Line:
    parted = "\n" if first.role == second.role == "observation" else "\n\n"
    return line(first.role, f"{first.text}{parted}{second.text}")
