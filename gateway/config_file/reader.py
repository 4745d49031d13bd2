"""Reads plain data beside the type that it has to become, and notes every mistake instead of stopping.

Values from the environment and from `--set` are tried as YAML, then as plain text. Placeholders are
replaced where a value is used, so a secret that a later layer overrides need not exist.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from gateway.config_file.forms import Form
from gateway.config_file.layers import Given
from gateway.config_file.masking import MASK, is_secret, masked_text
from gateway.config_file.placeholders import MissingSecret, has_placeholder, replaced
from gateway.config_file.problem import Problem
from gateway.config_file.shape import Row, Section, Table, all_paths, choices, may_be_text, names, shape_of
from gateway.config_file.yaml_text import joined, scalar_or_flow

_SHOWN_LENGTH = 60
_PLAIN_WORDS = {"`object`": "a section", "`array`": "a list", "`null`": "nothing", "`": ""}
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
_SEGMENT = re.compile(r"[.\[\]]+")
_INDEX = re.compile(r"\[[0-9]+\]")


@dataclass(slots=True, kw_only=True)
class Reader:
    """One reading: where values come from, and the problems so far."""

    root: type[msgspec.Struct]
    lines: Mapping[str, int]
    env: Mapping[str, str]
    read_file: Callable[[Path], str]
    forms: Mapping[str, Form]
    problems: list[Problem] = field(default_factory=list)
    source: str = ""
    holds_secret: bool = False

    def section(
        self, value: Mapping[Any, object], wanted: type[msgspec.Struct], path: str
    ) -> dict[str, object]:
        """The plain data of a record, placeholders replaced, to be converted if nothing was noted."""
        before = len(self.problems)
        fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
        result: dict[str, object] = {}
        for key, item in value.items():
            if key in fields:
                result[key] = self.value(item, fields[key].type, joined(path, key))
            elif key in names(wanted):
                result[key] = item
            else:
                self._note(joined(path, key), self._unknown(str(key), wanted, path), item)
        for name, missing in fields.items():
            if missing.required and name not in value:
                self._note(joined(path, name), "is missing, and it has no default")
        if len(self.problems) == before:
            self._whole(result, wanted, path)
        return result

    def value(self, value: object, wanted: Any, path: str) -> object:
        """The plain data of any setting."""
        if isinstance(value, Given):
            parsed = scalar_or_flow(value.text)
            return self._first_good(replace(self, source=value.source), (parsed, value.text), wanted, path)
        if isinstance(value, str) and has_placeholder(value) and not self.holds_secret:
            return self._with_secrets(value, wanted, path)
        if isinstance(value, str) and _EXPONENT.fullmatch(value) and not may_be_text(wanted):
            value = float(value)  # YAML 1.1 takes `1e-3` for a text; nobody who sets a number means that
        before = len(self.problems)
        result = self._plain(value, wanted, path)
        if len(self.problems) == before:
            self._fits(result, wanted, path)
        return result

    def _plain(self, value: object, wanted: Any, path: str) -> object:
        match shape_of(wanted, value), value:
            case Section(kind), dict() | None:
                return self.section(value or {}, kind, path)
            case Table(item), dict():
                return {key: self.value(inner, item, joined(path, key)) for key, inner in value.items()}
            case Row(item), list():
                return [self.value(inner, item, f"{path}[{index}]") for index, inner in enumerate(value)]
            case _:
                return self._whole(value, wanted, path)

    def _fits(self, value: object, wanted: Any, path: str) -> None:
        """Note what the setting's form, if it has one, misses in a value of the right type."""
        form = self.forms.get(_INDEX.sub("[]", path))
        if form is not None and (wrong := form(value)):
            shown = "" if isinstance(value, list | dict) else f", got {self._shown(value, wanted, path)}"
            self._note(path, f"{wrong}{shown}", value)

    def _with_secrets(self, value: str, wanted: Any, path: str) -> object:
        try:
            text = replaced(value, self.env, self.read_file)
        except MissingSecret as error:
            self._note(path, str(error))
            return None
        # As text first: a password of digits must stay one.
        return self._first_good(replace(self, holds_secret=True), (text, scalar_or_flow(text)), wanted, path)

    def _first_good(
        self, reader: "Reader", meanings: tuple[object, object], wanted: Any, path: str
    ) -> object:
        """What `reader` makes of the first meaning that has no problem; else the first one's problems."""
        trials = [replace(reader, problems=[]) for _ in meanings]
        for trial, meaning in zip(trials, meanings, strict=True):
            result = trial.value(meaning, wanted, path)
            if not trial.problems:
                return result
        self.problems += trials[0].problems
        return None

    def _whole(self, value: object, wanted: Any, path: str) -> object:
        """A value without settings inside; it is converted here only to hear whether it can be."""
        try:
            msgspec.convert(value, wanted, dec_hook=decoded)
        except msgspec.ValidationError as error:
            text, _, inside = str(error).partition(" - at `$")
            if not inside and not isinstance(value, dict):
                text = self._refusal(text, value, wanted, path)
            self._note(f"{path}{inside.rstrip('`')}".removeprefix("."), _plain_words(text), value)
        return value

    def _refusal(self, text: str, value: object, wanted: Any, path: str) -> str:
        shown = self._shown(value, wanted, path)
        listed = choices(wanted)
        if text.startswith("Invalid enum value"):
            near = difflib.get_close_matches(str(value), listed, 1) if shown != MASK else []
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"expected one of {', '.join(listed)}, got {shown}{hint}"
        return f"{text.partition(', got ')[0]}, got {shown}"

    def _shown(self, value: object, wanted: Any, path: str) -> str:
        named_secret = any(map(is_secret, _SEGMENT.split(path)))
        if self.holds_secret or (named_secret and may_be_text(wanted)):
            return MASK
        return _described(value)

    def _unknown(self, key: str, wanted: type[msgspec.Struct], path: str) -> str:
        here = names(wanted)
        if near := difflib.get_close_matches(key, here, 1):
            return f"there is no such setting; did you mean {joined(path, near[0])}?"
        elsewhere = {known.rpartition(".")[2]: known for known in all_paths(self.root)}
        if near := difflib.get_close_matches(key, elsewhere, 1, cutoff=0.8):
            return f"there is no such setting; did you mean {elsewhere[near[0]]}?"
        return f"there is no such setting; known here: {', '.join(here) or 'none'}"

    def _note(self, path: str, message: str, value: object = None) -> None:
        self.problems.append(Problem(path, message, _source(value) or self.source or self._line(path)))

    def _line(self, path: str) -> str:
        while path:
            if path in self.lines:
                return f"line {self.lines[path]}"
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return ""


def decoded(wanted: type, value: Any) -> object:
    """The types that msgspec does not know itself: of these, settings use paths."""
    if wanted is Path:
        return Path(value).expanduser()
    raise NotImplementedError(f"settings cannot be of type {wanted}")


def _described(value: object) -> str:
    match value:
        case dict():
            return "a section"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            text = masked_text(value)
            return f"'{text[:_SHOWN_LENGTH]}...'" if len(text) > _SHOWN_LENGTH else f"'{text}'"
    return str(value)


def _source(value: object) -> str:
    """Where the first value inside was typed, if it was not in the file."""
    match value:
        case Given():
            return value.source
        case dict():
            return next(filter(None, map(_source, value.values())), "")
        case _:
            return ""


def _plain_words(text: str) -> str:
    for word, plain in _PLAIN_WORDS.items():
        text = text.replace(word, plain)
    return text[:1].lower() + text[1:]
