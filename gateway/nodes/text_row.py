"""Events that differ in their text only: nearly all of an answer, told from the others at a glance. Pure.

A chunk is looked at for half a dozen patterns on its way, which costs more than all else that is done with
it. Once one event was looked at, those that begin and end with the same bytes and have plain text between can
have none of the patterns either, and at the end many of them are read as one event with all of their text.
"""

import re

_TEXT_EVENT = re.compile(
    rb'(data: \{[^\n]*"delta":\s?\{(?:"role":\s?(?:null|"assistant"),\s?)?"content":\s?")'
    rb'[^"\\\n]*("(?:,\s?"\w{1,40}":\s?null)*\s?\}[^\n]*\n\n)'
)
"""The text is all that its delta has: a piece of a tool call beside it would be read once for many."""
_DELTA = b'"delta"'
_NOT_PLAIN = b'"\\\n'
_LESSONS = 32
"""Who changes more often than that is not worth it."""


class TextRow:
    """The row of one stream. An event of another shape does not end it."""

    def __init__(self) -> None:
        self._begin = b""
        self._rest = b""
        self._lessons = 0

    def learn(self, event: bytes) -> None:
        """Events to come may be like this one, which was looked at and is none that matters."""
        if self._lessons >= _LESSONS or event.count(_DELTA) != 1:
            return
        if found := _TEXT_EVENT.fullmatch(event):
            self._lessons += 1
            self._begin, self._rest = found.groups()

    def text_of(self, event: bytes) -> bytes | None:
        """The text of an event of this row; None for any other."""
        begin, rest = self._begin, self._rest
        if not begin or not event.startswith(begin) or not event.endswith(rest):
            return None
        stop = len(event) - len(rest)
        text = event[len(begin) : stop]
        # A quote, an escape or a line's end: the text may end before the event does.
        is_plain = stop >= len(begin) and text.translate(None, _NOT_PLAIN) == text
        return text if is_plain else None

    def event_of(self, texts: list[bytes]) -> bytes:
        """One event with all of these texts."""
        return b"".join((self._begin, *texts, self._rest))
