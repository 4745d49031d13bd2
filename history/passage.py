"""What one archived turn says, as recall keeps it and as a prompt quotes it.

A passage has the words of user and character; tool calls, their results and media are left out, and so is a
tail that stayed with its turn: what was recalled once must not be found again as if it had been said then. A
long passage is quoted by its sentences around the words that were asked for. Pure.
"""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from history.conversation import Turn
from history.kept_tail import said_messages
from history.message import role_of, text_of
from history.neutral import quoted
from history.words import is_unspaced, words

Who = Literal["user", "assistant"]

_SENTENCE = re.compile(r".+?(?:[.!?]{1,8}(?=\s)|[。！？…]+|\n|$)", re.DOTALL)
_BYTES_PER_TOKEN = 4
_LATEST_S = 1e11
"""The calendar ends somewhere; imported dialogues may say anything."""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """What one side said."""

    who: Who
    text: str


class Passage(msgspec.Struct, frozen=True, array_like=True):
    """What was said in the turn at `position`, or a part of it."""

    position: int
    at: float
    """Unix seconds of the turn's commit; 0: not known."""
    lines: tuple[Line, ...]

    def text(self) -> str:
        """All that is said, for the index."""
        return "\n".join(line.text for line in self.lines)


def remembered(position: int, turn: Turn, *, max_chars: int) -> Passage:
    """The passage of a turn; what is beyond `max_chars` is not kept."""
    lines: list[Line] = []
    for message in said_messages(turn.messages, turn.tailed):
        role = role_of(message)
        if role not in ("user", "assistant"):
            continue
        text = text_of(message)[:max_chars].strip()
        if not text:
            continue
        lines.append(Line("user" if role == "user" else "assistant", text))
        max_chars -= len(text)
    return Passage(position=position, at=turn.at, lines=tuple(lines))


def tokens_of(text: str) -> int:
    """An estimate of the text's tokens, rounded up, in the measure of `conversation.token_estimate`."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def quotation(passage: Passage, names: dict[Who, str]) -> list[str]:
    """The passage as lines of a block: who said what, a message to a line, nothing in it but text."""
    return [f"{names[line.who]}: {quoted(line.text)}" for line in passage.lines]


def day(passage: Passage) -> str:
    """The date it was said, in UTC; empty where that is not known."""
    return f"{datetime.fromtimestamp(passage.at, tz=UTC):%Y-%m-%d}" if 0 < passage.at < _LATEST_S else ""


def excerpt(passage: Passage, stems: Collection[str], *, max_tokens: int) -> Passage:
    """The part of the passage around its most telling sentence, in at most `max_tokens`.

    `stems` are the words that were asked for, as the index stems them.
    """
    if sum(tokens_of(quoted(line.text)) for line in passage.lines) <= max_tokens:
        return passage
    pieces = [
        (at, found)
        for at, line in enumerate(passage.lines)
        for found in _SENTENCE.findall(line.text)
        if found.strip()
    ]
    telling = [_matches(text, stems) for _, text in pieces]
    best = max(range(len(pieces)), key=lambda at: (telling[at], -at))
    sizes = [tokens_of(quoted(text)) + 1 for _, text in pieces]
    if sizes[best] > max_tokens:
        line, text = pieces[best]
        short = Line(passage.lines[line].who, _clipped(text, stems, max_tokens))
        return msgspec.structs.replace(passage, lines=(short,))
    first, last = _widened(sizes, best, max_tokens)
    return msgspec.structs.replace(passage, lines=_joined(passage, pieces, first, last))


def _matches(text: str, stems: Collection[str]) -> int:
    """How many of the stems the text has, as near as one can tell without stemming it."""
    said = set(words(text))
    return sum(stem in said or _begins_one(stem, said) for stem in stems)


def _begins_one(stem: str, said: Collection[str]) -> bool:
    """Porter changes at most the last letter of what it leaves (happy, happi)."""
    return not is_unspaced(stem) and len(stem) > 2 and any(word.startswith(stem[:-1]) for word in said)


def _widened(sizes: Sequence[int], best: int, max_tokens: int) -> tuple[int, int]:
    """The longest stretch around `best` that fits, growing by turns to what follows and what goes before."""
    first = last = best
    left = max_tokens - sizes[best]
    grows = True
    while grows:
        grows = False
        if last + 1 < len(sizes) and sizes[last + 1] <= left:
            last, left, grows = last + 1, left - sizes[last + 1], True
        if first and sizes[first - 1] <= left:
            first, left, grows = first - 1, left - sizes[first - 1], True
    return first, last


def _joined(passage: Passage, pieces: Sequence[tuple[int, str]], first: int, last: int) -> tuple[Line, ...]:
    """The sentences `first` to `last` as lines again, with a mark where a line goes on."""
    said: dict[int, list[str]] = {}
    for line, text in pieces[first : last + 1]:
        said.setdefault(line, []).append(text)
    lines = []
    for line, texts in said.items():
        before = "…" if first and pieces[first - 1][0] == line else ""
        after = "…" if last + 1 < len(pieces) and pieces[last + 1][0] == line else ""
        lines.append(Line(passage.lines[line].who, f"{before}{''.join(texts).strip()}{after}"))
    return tuple(lines)


def _clipped(text: str, stems: Collection[str], max_tokens: int) -> str:
    """A piece of one long sentence, beginning a little before the first word that was asked for."""
    lowered = text.lower()
    found = [at for at in (lowered.find(stem[:-1] if len(stem) > 2 else stem) for stem in stems) if at >= 0]
    start = max(0, min(found, default=0) - max_tokens // 2)
    short = text[start : start + max_tokens * _BYTES_PER_TOKEN]
    while tokens_of(quoted(short)) + 2 > max_tokens and short:
        short = short[: len(short) * 3 // 4]
    return f"{'…' if start else ''}{short}…"
