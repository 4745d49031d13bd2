"""A tail that was kept with its turn: whose message has it, and that message without it. Pure.

What a client said and what the gateway put behind it are told apart by where the tail stands (`Tailed`),
never by how the text looks: a user may write `<time>` or `<note>` on a line, too, and gets it back.
"""

import re
from collections.abc import Sequence

import msgspec

from history.conversation import Tailed

RECALLED, LORE, NOTE, GAP = "recalled", "lore", "note", "time"
"""The names of the blocks in a tail (see `history.tail`)."""

BEFORE = "\n\n"
"""What parts a tail from what was said."""

_OPENING = re.compile(rf"<(?:{RECALLED}|{LORE}|{NOTE}|{GAP})>\n")


def shown_messages(messages: Sequence[bytes], tailed: Tailed | None, cut: int) -> Sequence[bytes]:
    """A turn's messages as a prompt with this cut shows them: a tail goes when the cut moves.

    Everything behind a cut is computed anyway, so leaving the tails out there costs nothing.
    """
    return messages if tailed is None or tailed.cut == cut else said_messages(messages, tailed)


def said_messages(messages: Sequence[bytes], tailed: Tailed | None) -> Sequence[bytes]:
    """A turn's messages as they were said, without the tail."""
    if tailed is None or not 0 <= tailed.message < len(messages):
        return messages
    at = tailed.message
    return (*messages[:at], without_tail(messages[at], tailed.chars), *messages[at + 1 :])


def tailed_within(tailed: Tailed | None, count: int) -> Tailed | None:
    """Where the tail stands once only the first `count` messages of its turn are left."""
    return tailed if tailed is not None and tailed.message < count else None


def without_tail(message: bytes, chars: int) -> bytes:
    """A user message, as JSON, without the tail of so many characters; as it is where no such tail stands."""
    fields = msgspec.json.decode(message)
    content = fields["content"]
    if isinstance(content, list) and content and content[-1].get("type") == "text":
        if not _is_tail(content[-1]["text"], chars, whole=True):
            return message
        fields["content"] = content[:-1]
    elif isinstance(content, str) and _is_tail(content, chars, whole=False):
        fields["content"] = content[: -chars - len(BEFORE)]
    else:
        return message
    return msgspec.json.encode(fields)


def _is_tail(text: str, chars: int, *, whole: bool) -> bool:
    """Whether a text ends with (or is) a tail of so many characters."""
    start = len(text) - chars - len(BEFORE)
    is_placed = start == 0 if whole else start >= 0
    is_parted = is_placed and text.startswith(BEFORE, start)
    return is_parted and _OPENING.match(text, start + len(BEFORE)) is not None
