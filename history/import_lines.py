"""Files of OpenAI's items or chat messages: one to a line, or a whole dialogue to a line. Pure.

    {"type": "message", "role": "user", "content": "Hello"}        the file is one dialogue
    {"messages": [{"role": "user", "content": "Hello"}, …]}        each line is one; `items` does as well

A system message at the beginning of a dialogue is its persona.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from history.beginning import Beginning
from history.errors import InvalidMessages
from history.grouping import Said
from history.import_events import Event, Line, Start, Utterance, Wrong
from history.import_items import Numbered, chat_messages, kept_message
from history.message import Message, is_persona

Fields = dict[str, Any]

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def is_dialogue(fields: Fields) -> bool:
    """Whether a line is a whole dialogue."""
    return isinstance(fields.get("messages") or fields.get("items"), list)


def is_item(fields: Fields) -> bool:
    """Whether a line is an item or a message."""
    return "role" in fields or "type" in fields


def dialogues(lines: Iterable[Line]) -> Iterator[Event]:
    """What a file says of which each line is a dialogue. The seed is the line itself."""
    for number, line in lines:
        try:
            said = _whole(_decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Wrong(number, f"it is no JSON object: {error}")
        except InvalidMessages as error:
            yield Wrong(number, f"{error.param}: {error.reason}")
        else:
            yield from _dialogue(said, hashlib.sha256(line.strip()).digest(), number)


def items(lines: Iterable[Line], seed: Callable[[], bytes]) -> Iterator[Event]:
    """What a file says that is one dialogue. `seed` is asked for when its first message has come."""
    wrong: list[Wrong] = []
    began = False
    for number, fields in chat_messages(_read(lines, wrong)):
        yield from _taken(wrong)
        try:
            message = kept_message(number, fields)
        except InvalidMessages as error:
            yield Wrong(number, error.reason)
            continue
        if not began:
            began = True
            persona = message.json if is_persona(message) else b""
            yield Start(seed=seed(), beginning=Beginning(persona=persona), line=number)
            if persona:
                continue
        yield Utterance(Said(message), number)
    yield from _taken(wrong)


def _whole(fields: Fields) -> list[Message]:
    """The messages of a line that is a dialogue."""
    if not is_dialogue(fields):
        raise InvalidMessages("a line has messages or items, as the first line has")
    items = list(enumerate(fields.get("messages") or fields["items"]))
    if not all(isinstance(item, dict) for _, item in items):
        raise InvalidMessages("a message is an object")
    return [kept_message(at, one) for at, one in chat_messages(items)]


def _dialogue(said: list[Message], seed: bytes, number: int) -> Iterator[Event]:
    persona = said[0].json if said and is_persona(said[0]) else b""
    yield Start(seed=seed, beginning=Beginning(persona=persona), line=number)
    for message in said[bool(persona) :]:
        yield Utterance(Said(message), number)


def _read(lines: Iterable[Line], wrong: list[Wrong]) -> Iterator[Numbered]:
    """The items that can be read, each alone; what cannot is put aside."""
    for number, line in lines:
        try:
            fields = _decode(line)
            # What is wrong with one item must not end the others.
            list(chat_messages([(number, fields)]))
            yield number, fields
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            wrong.append(Wrong(number, f"it is no JSON object: {error}"))
        except InvalidMessages as error:
            wrong.append(Wrong(number, error.reason))


def _taken(wrong: list[Wrong]) -> list[Wrong]:
    taken = list(wrong)
    wrong.clear()
    return taken
