"""The model's name in an answer: the one that was asked for, whatever the engine calls it. Pure.

SGLang repeats `MODEL:ADAPTER`, a proxy may name a dated version. The name is spliced where it stands; nothing
is written anew, and an answer that has the right name already is passed on as it is. Inside of JSON's strings
every quote is escaped, so what a model says is never taken for the field.
"""

import re

import msgspec

_FIELD = re.compile(rb'"model":\s?("(?:[^"\\]|\\.)*+")')


class _Named(msgspec.Struct):
    model: str | None = None


_decode = msgspec.json.Decoder(_Named).decode


class Splice(msgspec.Struct, frozen=True, gc=False):
    """What to put in the place of what."""

    old: bytes = b""
    new: bytes = b""

    def of(self, blob: bytes) -> bytes:
        """The bytes with the right name."""
        return blob.replace(self.old, self.new) if self.old else blob


AS_IT_IS = Splice()


def splice_for(answer: bytes, asked: str) -> Splice:
    """What an answer, or the first chunk of one, needs; nothing where no name is told or asked for."""
    try:
        named = _decode(answer).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return AS_IT_IS
    if not named or not asked or named == asked:
        return AS_IT_IS
    for field in _FIELD.finditer(answer):
        if msgspec.json.decode(field[1]) == named:
            return Splice(field[0], b'"model":%b' % msgspec.json.encode(asked))
    return AS_IT_IS
