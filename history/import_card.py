"""Character cards, V1 to V3, as JSON or inside a PNG: a persona and its greetings. Pure.

`{{char}}` becomes the character's name. `{{user}}` becomes "the user" in the persona, which all users of a
character share; only a greeting, which belongs to one conversation, may name somebody.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from history.beginning import Beginning, Owner
from history.grouping import Group, Grouped, Said
from history.import_events import Event, Start, Whole
from history.memory import is_chinese
from history.message import Message, message

MAX_CARD_BYTES = 64 * 1024 * 1024
_MAX_GREETINGS = 100
_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNKS = (b"ccv3", b"chara")
"""Where a PNG has its card, the newest form first."""
_USER = re.compile(r"\{\{user\}\}|<user>", re.IGNORECASE)
_CHAR = re.compile(r"\{\{char\}\}|<bot>", re.IGNORECASE)
_GONE = re.compile(r"\{\{original\}\}|\{\{//.*?\}\}|^<start>[ \t]*$", re.IGNORECASE | re.MULTILINE)
_MACRO = re.compile(r"\{\{.*?\}\}|<(?:user|bot|start)>", re.IGNORECASE)
_CHINESE_USER = "用户"
_LINES = re.compile(r"\n{3,}")
_ENGLISH = {"personality": "Personality: ", "scenario": "Scenario: ", "mes_example": "How they talk:\n"}
_CHINESE = {"personality": "性格：", "scenario": "场景：", "mes_example": "对话示例：\n"}
_PARTS = (
    "system_prompt",
    "description",
    "personality",
    "scenario",
    "mes_example",
    "post_history_instructions",
)


class CardUnreadable(ValueError):
    """The file is no character card; the text says why."""


class Card(msgspec.Struct, frozen=True):
    """What a conversation with this character begins with."""

    name: str
    persona: Message
    greetings: tuple[Message, ...]
    """The first is the one to begin with."""


def read_card(data: bytes, *, user_name: str = "") -> Card:
    """The card in a file. `user_name`: what greetings call the user. Raises `CardUnreadable`."""
    if len(data) > MAX_CARD_BYTES:
        raise CardUnreadable(f"a card has at most {MAX_CARD_BYTES} bytes")
    try:
        fields = msgspec.json.decode(_json(data), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CardUnreadable(f"it is no character card: {error}") from error
    data_of_v2 = fields.get("data")
    found: dict[str, Any] = data_of_v2 if isinstance(data_of_v2, dict) else fields
    name = _text(found, "nickname") or _text(found, "name")
    if not name:
        raise CardUnreadable("a character card has a name")
    persona = _persona(found, name)
    greetings = [_filled(text, name, user_name or _somebody(text)) for text in _greetings(found)]
    return Card(
        name=name,
        persona=message({"role": "system", "content": persona}),
        greetings=tuple(message({"role": "assistant", "content": text}) for text in dict.fromkeys(greetings)),
    )


def events(card: Card) -> Iterator[Event]:
    """A conversation that begins with this card. The other greetings are versions of its first turn."""
    beginning = Beginning(owner=Owner(character=card.persona.digest.hex()), persona=card.persona.json)
    yield Start(seed=card.persona.digest, beginning=beginning, line=1)
    if greeting := _greeting(card):
        yield Whole(greeting, line=1)


def _greeting(card: Card) -> Grouped | None:
    if not card.greetings:
        return None
    group = Group()
    group.add(Said(card.greetings[0], behind=card.greetings[1:]))
    return group.closed()


def _json(data: bytes) -> bytes:
    if not data.startswith(_PNG):
        return data.removeprefix(b"\xef\xbb\xbf")
    texts = dict(_texts(data))
    for name in _CHUNKS:
        if name in texts:
            try:
                return base64.b64decode(texts[name])
            except binascii.Error as error:
                raise CardUnreadable(f"the card in the picture is no base64: {error}") from error
    raise CardUnreadable("there is no character card in this picture")


def _texts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The text chunks of a PNG, by name. A broken one ends it."""
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        check = data[at + 8 + length : at + 12 + length]
        if len(body) < length or int.from_bytes(check) != zlib.crc32(kind + body):
            raise CardUnreadable("the picture is broken or was cut off")
        if kind == b"tEXt":
            name, _, text = body.partition(b"\0")
            yield name, text
        at += 12 + length


def _persona(fields: dict[str, Any], name: str) -> str:
    texts = {part: _text(fields, part) for part in _PARTS}
    user = _somebody(" ".join(texts.values()))
    labels = _CHINESE if user == _CHINESE_USER else _ENGLISH
    parts = [labels.get(part, "") + text for part, text in texts.items() if text]
    return _filled("\n\n".join(parts) or name, name, user)


def _greetings(fields: dict[str, Any]) -> list[str]:
    others = fields.get("alternate_greetings")
    texts = [_text(fields, "first_mes")]
    texts += [one for one in others if isinstance(one, str)] if isinstance(others, list) else []
    return [text.strip() for text in texts if text.strip()][:_MAX_GREETINGS]


def _somebody(text: str) -> str:
    return _CHINESE_USER if is_chinese(_MACRO.sub("", text)) else "the user"


def _filled(text: str, name: str, user: str) -> str:
    # Functions, so that a name with a backslash in it is a name.
    text = _GONE.sub("", text.replace("\r\n", "\n"))
    text = _USER.sub(lambda _: user, _CHAR.sub(lambda _: name, text))
    return _LINES.sub("\n\n", text).strip()


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value.strip() if isinstance(value, str) else ""
