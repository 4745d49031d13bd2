"""The records of an uploaded file, one after another: JSON lines, or one JSON array. An edge that reads only.

What ends LLaMA-Factory at its first line is named here: other encodings, a byte order mark, an empty file,
lines that are no JSON. Never more than one record is in memory.
"""

import codecs
import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import msgspec

from training.datasets.text import misread

MAX_RECORD_BYTES = 16 * 1024 * 1024
_CHUNK = 256 * 1024
_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_STRUCTURE = re.compile(rb'["\\\[\]{},]')
_SPACE = b" \t\r\n"
_Raw = tuple[int, bytes | str]
"""A record's number and its bytes, or why it is none."""


class Record(msgspec.Struct, frozen=True):
    """One record, or why it is none. `number` counts from 1; of JSON lines it is the line."""

    number: int
    fields: dict[str, Any] | None
    problem: str = ""
    mends: tuple[str, ...] = ()


def records(path: Path) -> Iterator[Record]:
    """What the file holds. An empty one holds one record that is a problem."""
    found = False
    with path.open("rb") as file:
        start = file.read(_CHUNK)
    mends: tuple[str, ...] = ()
    for mark, name in _BOMS:
        if start.startswith(mark):
            yield Record(1, None, f"the file is {name}; save it as UTF-8")
            return
    if start.startswith(codecs.BOM_UTF8):
        start, mends = start[3:], ("byte_order_mark_removed",)
    raws = (
        _elements(path, len(mends) * 3)
        if start.lstrip(_SPACE).startswith(b"[")
        else _lines(path, len(mends) * 3)
    )
    for number, raw in raws:
        found = True
        yield _record(number, raw, mends)
        mends = ()
    if not found:
        yield Record(1, None, "there is no record in the file")


def _record(number: int, raw: bytes | str, mends: tuple[str, ...]) -> Record:
    if isinstance(raw, str):
        return Record(number, None, raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return Record(number, None, _undecodable(raw, error))
    try:
        fields = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        # A lone surrogate passes here, as it does in LLaMA-Factory; what is wrong fails again.
        try:
            fields = json.loads(text, parse_constant=_refused)
        except (ValueError, RecursionError) as error:
            return Record(number, None, f"it is no JSON: {str(error)[:200]}")
    if not isinstance(fields, dict):
        return Record(number, None, f"a record is a JSON object, not {_kind(fields)}")
    return Record(number, fields, "", mends)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _undecodable(raw: bytes, error: UnicodeDecodeError) -> str:
    where = f"byte {error.start} of the record (0x{raw[error.start]:02x}) is not UTF-8"
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return f"{where}; save the file as UTF-8"
    chinese = sum("\u4e00" <= one <= "\u9fff" for one in text)
    if chinese * 4 > sum(not one.isascii() for one in text) and not misread(text):
        return f"{where}; it seems to be GBK: convert the file with iconv -f GB18030 -t UTF-8"
    return f"{where}; save the file as UTF-8"


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _lines(path: Path, skip: int) -> Iterator[_Raw]:
    """The lines that are not empty. One that is too long is named, and what follows it is not read."""
    with path.open("rb") as file:
        file.seek(skip)
        number = 0
        while line := file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                yield number, f"it is longer than {MAX_RECORD_BYTES // 2**20} MiB; a record is one line"
                return
            if line.strip(_SPACE):
                yield number, line


def _elements(path: Path, skip: int) -> Iterator[_Raw]:
    """The elements of one JSON array, found by brackets and quotes; what is in them is for the parser to
    judge.
    """
    splitter = _Splitter()
    with path.open("rb") as file:
        file.seek(skip)
        while chunk := file.read(_CHUNK):
            yield from splitter.feed(chunk)
            if splitter.is_over:
                return
    if not splitter.ended:
        yield splitter.count + 1, "the array does not end; the file was cut off"


class _Splitter:
    """Where in an array we are."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = False
        self.is_over = False
        self._held = bytearray()
        self._depth = 0
        self._in_text = False
        self._escaped = -1
        self._offset = 0

    def feed(self, chunk: bytes) -> Iterator[_Raw]:
        """The elements that end in this piece of the file."""
        start = 0
        for found in _STRUCTURE.finditer(chunk):
            at, sign = found.start(), found[0]
            if self._offset + at == self._escaped:
                continue
            if self._in_text:
                self._in_text = sign != b'"'
                if sign == b"\\":
                    self._in_text, self._escaped = True, self._offset + at + 1
                continue
            if self.ended:
                break
            start = yield from self._sign(sign, chunk, start, at)
        yield from self._rest(chunk, start)
        self._offset += len(chunk)

    def _rest(self, chunk: bytes, start: int) -> Iterator[_Raw]:
        if self.ended:
            if chunk[start:].strip(_SPACE):
                self.is_over = True
                yield self.count + 1, "something stands behind the array"
            return
        self._held += chunk[start:]
        if len(self._held) > MAX_RECORD_BYTES:
            self.is_over = self.ended = True
            yield self.count + 1, f"it is longer than {MAX_RECORD_BYTES // 2**20} MiB"

    def _sign(self, sign: bytes, chunk: bytes, start: int, at: int) -> Generator[_Raw, None, int]:
        """What a sign outside of texts does; returns where the element at hand begins."""
        if sign == b'"':
            self._in_text = True
        elif sign in b"[{":
            self._depth += 1
            if self._depth == 1:
                return at + 1  # the array's own
        elif sign in b"]}":
            self._depth -= 1
            if not self._depth:
                self.ended = True
                yield from self._element(chunk[start:at], is_last=True)
                return at + 1
        elif sign == b"," and self._depth == 1:
            yield from self._element(chunk[start:at], is_last=False)
            return at + 1
        return start

    def _element(self, end: bytes, *, is_last: bool) -> Iterator[_Raw]:
        element = bytes(self._held) + end
        self._held.clear()
        if is_last and not element.strip(_SPACE):
            return  # of an empty array, or behind a comma that other parsers bear too
        self.count += 1
        yield self.count, element
