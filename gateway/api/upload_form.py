"""A form with one file in it (`multipart/form-data`), read as it comes: the file is never whole in memory.

The parser is python-multipart, which Starlette uses too; Starlette's own reading of forms would put the file
into a temporary folder first.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from gateway.api.conversation_body import raw_headers
from gateway.errors import BadRequest, BodyStalled, TooLarge
from gateway.request import check_encoding

if TYPE_CHECKING:  # it exists for type checkers alone
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELDS_BYTES = 64 * 1024
"""For all that is not the file: heads of parts, boundaries and fields."""
MAX_NAME = 255

_IDLE_S = 30.0
_MAX_PARTS = 16
_EXPECTED = "expected multipart/form-data with a file in the part called file"


class UploadForm:
    """One form. After `open`, `filename` is known; after all of `content`, `fields` are complete."""

    def __init__(self, request: Request, *, max_file_bytes: int) -> None:
        check_encoding(raw_headers(request))
        kind, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
            raise BadRequest(_EXPECTED, param="file")
        self.fields: dict[str, str] = {}
        self.filename = ""
        self._stream = request.stream()
        self._most = max_file_bytes + MAX_FIELDS_BYTES
        self._bytes = 0
        self._parts = _Parts(self.fields)
        self._parser = MultipartParser(boundary, self._parts.callbacks())

    async def open(self) -> None:
        """Read as far as the file's first bytes. Raises BadRequest."""
        while self._parts.filename is None:
            if not await self._feed():
                raise BadRequest(_EXPECTED, param="file")
        self.filename = self._parts.filename

    async def content(self) -> AsyncIterator[bytes]:
        """The file's bytes, and then the rest of the form. Raises BadRequest for a form that breaks off."""
        while True:
            for piece in self._parts.taken():
                yield piece
            if not await self._feed():
                break
        for piece in self._parts.taken():
            yield piece
        if not self._parts.is_whole:
            raise BadRequest("the form ended before it was complete", param="file")

    async def _feed(self) -> bool:
        """Whether there was another piece of the body."""
        try:
            async with asyncio.timeout(_IDLE_S):
                piece = await anext(self._stream)
            self._bytes += len(piece)
            if self._bytes > self._most:
                raise TooLarge(self._most)
            self._parser.write(piece)
        except StopAsyncIteration:
            return False
        except TimeoutError as error:
            raise BodyStalled(_IDLE_S) from error
        except ClientDisconnect as error:
            raise BadRequest("the form ended before it was complete", param="file") from error
        except FormParserError as error:
            raise BadRequest(f"the form cannot be read: {error}", param="file") from error
        return True


class _Parts:
    """What the parser's callbacks make of the parts."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.filename: str | None = None
        self.is_whole = False
        self._fields = fields
        self._count = 0
        self._name = ""
        self._is_file = False
        self._text = bytearray()
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._of_file: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        """As the parser calls them."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._head_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._whole,
        }

    def taken(self) -> Iterator[bytes]:
        """The file's bytes since the last time."""
        pieces, self._of_file = self._of_file, []
        return iter(pieces)

    def _begin(self) -> None:
        self._count += 1
        if self._count > _MAX_PARTS:
            raise BadRequest(f"a form has at most {_MAX_PARTS} parts")
        self._disposition = b""
        self._text.clear()

    def _header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _head_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == "file"
        if not self._is_file:
            return
        if self.filename is not None:
            raise BadRequest("a form has one file", param="file")
        self.filename = _plain_name(options.get(b"filename", b""))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._of_file.append(bytes(data[start:end]))
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELDS_BYTES // _MAX_PARTS:
            raise BadRequest(f"{self._name[:64]} is too long", param=self._name[:64] or None)

    def _end(self) -> None:
        if not self._is_file:
            self._fields[self._name] = self._text.decode("utf-8", "replace")

    def _whole(self) -> None:
        self.is_whole = True


def _plain_name(given: bytes) -> str:
    """A file's name without folders, and with nothing in it that a terminal would take as an order."""
    name = given.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    plain = "".join(one if one.isprintable() else "_" for one in name)[:MAX_NAME]
    return plain if plain.strip(". ") else "upload"
