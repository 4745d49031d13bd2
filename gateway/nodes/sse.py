"""Server-sent events of a chat completion, told apart without parsing them.

A chunk is looked at only for byte patterns that cannot occur inside a JSON string (there, every quote is
escaped). Whole events are passed on as they came; what they say is read once, at the end.
"""

import re
from collections.abc import Iterable, Iterator

DONE = b"[DONE]"

_DONE = (b"data: [DONE]", b"data:[DONE]")
_FINISH = (b'"finish_reason":"', b'"finish_reason": "')
_NO_CHOICES = (b'"choices":[]', b'"choices": []')
_ERROR = (b'data: {"error"', b'data:{"error"', b'data: {"object":"error"', b'data: {"object": "error"')
_ERROR_AT_ALL = b'"error"'
"""In each of them, and quoted as it is in no text."""
_GAPS = (b"\n\n", b"\r\n\r\n")
_GAP = re.compile(b"|".join(_GAPS))


def split_complete(data: bytes) -> tuple[bytes, bytes]:
    """Whole events, and the beginning of one that is still to be completed."""
    if data.endswith(b"\n\n"):
        return data, b""
    end = max(_end_of_last(gap, data) for gap in _GAPS)
    return data[:end], data[end:]


def events(blob: bytes) -> Iterator[bytes]:
    """Single events of a blob of whole ones, their empty lines included."""
    start = 0
    # Who sends pings between an engine's events may end them otherwise than the engine does.
    for gap in _GAP.finditer(blob):
        yield blob[start : gap.end()]
        start = gap.end()


def payloads(blobs: Iterable[bytes]) -> Iterator[bytes]:
    """The data of each event, comments and empty ones left out."""
    for blob in blobs:
        for line in blob.splitlines():
            if line.startswith(b"data:"):
                yield line[5:].strip()


def finishes(blob: bytes) -> bool:
    """Whether a choice gets its non-null `finish_reason` here."""
    return _FINISH[0] in blob or _FINISH[1] in blob


def has_no_choices(blob: bytes) -> bool:
    """Whether this has a chunk without choices: the one with the usage."""
    return _NO_CHOICES[0] in blob or _NO_CHOICES[1] in blob


def is_done(blob: bytes) -> bool:
    """Whether the stream's end mark is in here: on a line of its own, since a model may write it too."""
    # Looked for in every piece, so what nearly all of them lack comes first.
    return DONE in blob and (blob.startswith(_DONE) or any(b"\n" + mark in blob for mark in _DONE))


def until_error(blob: bytes) -> tuple[bytes, bytes]:
    """The events before the first one that has an error instead of a chunk, and that one; empty: none."""
    if _ERROR_AT_ALL not in blob:
        return blob, b""
    start = 0
    for event in events(blob):
        if any(mark in event for mark in _ERROR):
            return blob[:start], event
        start += len(event)
    return blob, b""


def _end_of_last(gap: bytes, data: bytes) -> int:
    at = data.rfind(gap)
    return 0 if at < 0 else at + len(gap)
