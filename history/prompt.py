"""The prompt as the list of messages that an engine receives.

Most stable first, so that everything before the new message is a prefix of the next prompt: persona,
memory, the window's turns verbatim, then what is new. Between two cuts prompt t is a strict prefix of prompt
t+1; the property test of that sentence is the most important one of this package.
"""

from collections.abc import Iterable, Sequence

import msgspec

from history.conversation import Memory, Turn
from history.kept_tail import shown_messages
from history.memory import rendered


class Prompt(msgspec.Struct, frozen=True):
    """`messages` are JSON objects in order.

    `parts` are the same for telling prefixes apart: persona and memory count as two, though they stand in one
    message, since all users of a character share the persona.
    """

    messages: tuple[bytes, ...]
    parts: tuple[bytes, ...]

    def json(self) -> bytes:
        """The value of `messages` in a request body."""
        return b"[%b]" % b",".join(self.messages)


def build(
    persona: bytes, memory: Memory | None, turns: Sequence[Turn], new: Iterable[bytes], *, cut: int
) -> Prompt:
    """Lay out a prompt: persona, memory, the turns of the window, and the messages that are new.

    `cut`: how many turns stand before the window's first. Tails kept under another cut are left out.
    """
    remembered, first = rendered(memory, persona) if memory else (b"", persona)
    said = [message for turn in turns for message in shown_messages(turn.messages, turn.tailed, cut)]
    said.extend(new)
    heads = [part for part in (persona, remembered) if part]
    messages = (first, *said) if first else tuple(said)
    return Prompt(messages=messages, parts=(*heads, *said))
