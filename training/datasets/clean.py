"""Texts made fit for training: whole, without personal data, without control tokens; and stored messages as
lines.

Pure. What was mended is counted; what cannot be mended is a reason to leave the answer out.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from training.datasets.lines import Line, line
from training.datasets.personal import Kind, redacted
from training.datasets.rules import DatasetRules
from training.datasets.text import misread, parted, whole

_CACHED = 512
"""Personas, which many conversations share, are cleaned once."""


class Cleaned(msgspec.Struct, frozen=True, gc=False):
    """A text, and what it had in it."""

    text: str
    mends: tuple[str, ...] = ()
    found: tuple[Kind, ...] = ()
    misread: str = ""


class _Stored(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None


class Spoken(msgspec.Struct, frozen=True, gc=False):
    """A stored message as a line; `reason`: why it cannot be trained on, as an answer or in front of one."""

    line: Line
    calls: bool = False
    reason: str = ""
    has_personal: bool = False


_decode = msgspec.json.Decoder(_Stored).decode
_encode = msgspec.json.encode


class Cleaner:
    """Cleans by the rules, and counts what it mends. `mends` and `personal` are counted per text."""

    def __init__(self, rules: DatasetRules) -> None:
        self.mends: Counter[str] = Counter()
        self.personal: Counter[str] = Counter()
        self._kinds = () if rules.personal == "keep" else rules.personal_kinds
        self._personas: dict[bytes, Cleaned] = {}

    def text(self, text: str) -> Cleaned:
        """One text. The order matters: nothing that is taken out may leave a control token behind."""
        wrong = misread(text)
        clean, mends = whole(text)
        found: tuple[Kind, ...] = ()
        if self._kinds:
            clean, found = redacted(clean, self._kinds)
        clean, broken = parted(clean)
        if mends or broken:
            mends += broken
            self.mends.update(mends)
        if found:
            self.personal.update(found)
        return Cleaned(clean, mends, found, wrong)

    def persona(self, message: bytes) -> Cleaned:
        """The text of a leading system message, as JSON; empty for none."""
        known = self._personas.get(message)
        if known is None:
            if len(self._personas) >= _CACHED:
                self._personas.clear()
            text, _ = _texts(_decode(message).content) if message else ("", "")
            known = self._personas[message] = self.text(text)
        return known

    def spoken(self, message: bytes) -> Spoken:
        """A stored message."""
        fields = _decode(message)
        if fields.role == "assistant" and (fields.tool_calls or fields.function_call):
            return self._call(fields)
        text, reason = _texts(fields.content)
        clean = self.text(text)
        if reason:
            self.mends["media_left_out"] += 1
        if clean.misread:
            reason = "misread"
        return Spoken(
            line(_ROLES.get(fields.role, "user"), clean.text), reason=reason, has_personal=bool(clean.found)
        )

    def _call(self, fields: _Stored) -> Spoken:
        calls = [call.get("function") or {} for call in fields.tool_calls or ()] or [
            fields.function_call or {}
        ]
        clean = self.calls(calls)
        return Spoken(line("function", clean.text), calls=True, has_personal=bool(clean.found))

    def calls(self, calls: Sequence[dict[str, Any]]) -> Cleaned:
        """Tool calls as LLaMA-Factory reads them: one object, or a list of them, with decoded arguments.

        Cleaned text by text, so that it stays JSON.
        """
        found: list[Kind] = []
        told = [
            {"name": self.deep(str(call.get("name", "")), found), "arguments": self._arguments(call, found)}
            for call in calls
        ]
        text, _ = parted(_encode(told[0] if len(told) == 1 else told).decode())
        return Cleaned(text, found=tuple(found))

    def _arguments(self, call: dict[str, Any], found: list[Kind]) -> Any:
        return self.deep(_decoded(call.get("arguments")), found)

    def deep(self, value: Any, found: list[Kind] | None = None) -> Any:
        """A JSON value with every text in it cleaned; what personal data was in it goes into `found`."""
        if isinstance(value, str):
            clean = self.text(value)
            if found is not None:
                found += clean.found
            return clean.text
        if isinstance(value, list):
            return [self.deep(one, found) for one in value]
        if isinstance(value, dict):
            return {self.text(str(name)).text: self.deep(one, found) for name, one in value.items()}
        return value


_ROLES: dict[str, Any] = {
    "user": "user",
    "assistant": "assistant",
    "tool": "observation",
    "function": "observation",
    "system": "user",
    "developer": "user",
}
"""A system message in the middle of a dialogue has no place in the form: it stands as somebody's words."""


def _decoded(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return msgspec.json.decode(arguments) if arguments else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments  # models do write broken JSON; then the text is what was said


def _texts(content: str | list[dict[str, Any]] | None) -> tuple[str, str]:
    """The words of a content, and a reason if there is more in it than words."""
    if isinstance(content, str):
        return content, ""
    if not content:
        return "", ""
    texts = [part["text"] for part in content if isinstance(part.get("text"), str)]
    return "".join(texts), "" if len(texts) == len(content) else "not_text"
