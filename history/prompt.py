"""The prompt as the list of messages that an engine receives.

Most stable first, so that everything before the new message is a prefix of the next prompt: persona,
the window's turns verbatim, then what is new. Between two cuts prompt t is a strict prefix of prompt
t+1; the property test of that sentence is the most important one of this package.
"""

from collections.abc import Iterable, Sequence

import msgspec

from history.conversation import Turn


class Prompt(msgspec.Struct, frozen=True):
    """`messages` are JSON objects in order; the first `stable` of them were in an earlier prompt."""

    messages: tuple[bytes, ...]
    stable: int

    def json(self) -> bytes:
        """The value of `messages` in a request body."""
        return b"[" + b",".join(self.messages) + b"]"


def build(persona: bytes, turns: Sequence[Turn], new: Iterable[bytes]) -> Prompt:
    """Lay out a prompt from the persona, the turns of the window and the messages that are new."""
    stable: list[bytes] = [persona] if persona else []
    for turn in turns:
        stable.extend(turn.messages)
    return Prompt(messages=(*stable, *new), stable=len(stable))
