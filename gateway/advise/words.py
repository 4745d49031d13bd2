"""Texts in both languages, from `words.yaml` beside this file."""

from pathlib import Path

import msgspec
import yaml


class Said(msgspec.Struct, frozen=True):
    """One text in both languages."""

    english: str
    chinese: str


class _Text(msgspec.Struct, frozen=True):
    en: str
    zh: str


class Words:
    """All texts, read once."""

    def __init__(self) -> None:
        text = (Path(__file__).parent / "words.yaml").read_text(encoding="utf-8")
        self._texts = msgspec.convert(yaml.safe_load(text), dict[str, _Text])

    def say(self, key: str, **values: object) -> Said:
        """A text with its braces filled. Raises `KeyError` for what is not there."""
        text = self._texts[key]
        return Said(text.en.format(**values), text.zh.format(**values))
