"""SillyTavern's chat files: a line that says who talks, then a line for each message. Pure.

    {"user_name": "Ada", "character_name": "Eli", "create_date": …, "chat_metadata": {"integrity": …}}
    {"name": "Eli", "is_user": false, "mes": "Hi", "send_date": …, "swipes": ["Hi", "Hello"], "swipe_id": 0}

Swipes become versions of their turn. What the program hides from its own prompts (`is_system`) is left out; a
narrator's line is said by the user. Names are not kept: a user's name must not get into a shared prompt.
"""

import contextlib
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from history.beginning import Beginning
from history.errors import InvalidMessages
from history.grouping import Said
from history.import_events import Event, Line, Start, Utterance, Wrong
from history.message import Message, message

Fields = dict[str, Any]

_HEAD = frozenset({"user_name", "character_name", "chat_metadata"})
_MAX_SWIPES = 100
_FROM_MS = 100_000_000_000
"""A number from here on counts milliseconds."""
_DIGITS = 14
_NUMBERS = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2}) ?@(\d{1,2})h ?(\d{1,2})m ?(\d{1,2})s")
_WORDS = "%B %d, %Y %I:%M%p"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def is_head(fields: Fields) -> bool:
    """Whether a file that begins with this line is such a chat."""
    return bool(_HEAD & fields.keys()) and "mes" not in fields


def events(lines: Iterable[Line]) -> Iterator[Event]:
    """What the chat says."""
    for number, line in lines:
        try:
            fields = _decode(line)
            if is_head(fields):
                yield Start(seed=_seed(fields, line), beginning=Beginning(), line=number)
            elif not fields.get("is_system"):
                yield Utterance(_said(fields), number)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Wrong(number, f"it is no JSON object: {error}")
        except InvalidMessages as error:
            yield Wrong(number, error.reason)


def sent_at(date: Any) -> float:
    """Unix seconds of a `send_date` in any of the forms that it has had; 0 where it makes no sense."""
    if isinstance(date, str) and date.isascii() and date.isdigit() and len(date) <= _DIGITS:
        date = int(date)
    if isinstance(date, int | float) and not isinstance(date, bool):
        return date / 1000 if _FROM_MS <= date < _FROM_MS * 1000 else float(max(0, min(date, _FROM_MS)))
    with contextlib.suppress(ValueError, OverflowError):
        return _written_out(date).timestamp() if isinstance(date, str) else 0.0
    return 0.0


def _written_out(date: str) -> dt.datetime:
    """Raises `ValueError`, `OverflowError`. What names no zone is taken for UTC."""
    if found := _NUMBERS.match(date):
        year, month, day, hour, minute, second = map(int, found.groups())
        return dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
    if date[:1].isalpha():
        return dt.datetime.strptime(date.strip(), _WORDS).replace(tzinfo=dt.UTC)
    when = dt.datetime.fromisoformat(date)
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)


def _seed(head: Fields, line: bytes) -> bytes:
    """What stays the same while a chat goes on; its metadata change with every message."""
    metadata = head.get("chat_metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    marks = [head.get("create_date"), metadata.get("integrity"), metadata.get("main_chat")]
    if not any(marks):
        return line
    names = [head.get("user_name"), head.get("character_name")]
    return msgspec.json.encode([*names, *(str(mark or "") for mark in marks)])


def _said(fields: Fields) -> Said:
    text = fields.get("mes")
    if not isinstance(text, str):
        raise InvalidMessages("a message has its text in mes")
    extra = fields.get("extra")
    narrates = isinstance(extra, dict) and extra.get("type") == "narrator"
    at = sent_at(fields.get("send_date"))
    if fields.get("is_user") or narrates:
        return Said(message({"role": "user", "content": text}), at)
    before, behind = _swipes(fields, text)
    return Said(_answer(text), at, before, behind)


def _swipes(fields: Fields, text: str) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The other answers, apart by whether they are older or newer than the one that is shown."""
    swipes = fields.get("swipes")
    texts = [one for one in swipes if isinstance(one, str)][:_MAX_SWIPES] if isinstance(swipes, list) else []
    at = fields.get("swipe_id")
    shown = at if isinstance(at, int) and 0 <= at < len(texts) else len(texts)
    older = _distinct(texts[:shown], {text})
    newer = _distinct(texts[shown + 1 :], {text, *older})
    return tuple(map(_answer, older)), tuple(map(_answer, newer))


def _distinct(texts: Iterable[str], known: set[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text not in known]


def _answer(text: str) -> Message:
    return message({"role": "assistant", "content": text})
