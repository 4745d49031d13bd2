"""Server-sent events of a chat completion, told apart without parsing them.

A chunk is looked at only for byte patterns that cannot occur inside a JSON string (there, every quote is
escaped). Whole events are passed on as they came; what they say is read once, at the end.
"""

from collections.abc import Iterable, Iterator

DONE = b"[DONE]"

_FINISH = (b'"finish_reason":"', b'"finish_reason": "')
_NO_CHOICES = (b'"choices":[]', b'"choices": []')
_ERROR = (b'data: {"error"', b'data:{"error"', b'data: {"object":"error"')


def split_complete(data: bytes) -> tuple[bytes, bytes]:
    """Whole events, and the beginning of one that is still to be completed."""
    if data.endswith(b"\n\n"):
        return data, b""
    end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
    if end < 4 and not data.startswith(b"\n\n"):
        return b"", data
    return data[:end], data[end:]


def events(blob: bytes) -> Iterator[bytes]:
    """Single events of a blob of whole ones, their empty lines included."""
    gap = b"\r\n\r\n" if b"\r\n\r\n" in blob else b"\n\n"
    start = 0
    while (end := blob.find(gap, start)) >= 0:
        yield blob[start : end + len(gap)]
        start = end + len(gap)


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
    """Whether the stream's end mark is in here."""
    return b"data: [DONE]" in blob or b"data:[DONE]" in blob


def is_error(blob: bytes) -> bool:
    """Whether this has an event with an error instead of a chunk."""
    return any(mark in blob for mark in _ERROR)
