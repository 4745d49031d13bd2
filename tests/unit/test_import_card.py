"""Character cards: who the character is, for all its users alike, and how it greets."""

import base64
import contextlib
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.import_card import Card, CardUnreadable, events, read_card
from history.import_events import Start, Whole

DATA = {
    "name": "Eli",
    "description": "{{char}} keeps a lighthouse. {{User}} visits <USER>.",
    "personality": "calm",
    "scenario": "A storm.",
    "first_mes": "Hello {{user}}, I am {{Char}}.",
    "mes_example": "<START>\n{{user}}: Who?\n{{char}}: Me.",
    "system_prompt": "Write as {{char}}. {{original}}",
    "post_history_instructions": "",
    "alternate_greetings": ["Come in, {{user}}.", "", 5],
    "tags": ["calm"],
}


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def picture(**texts: dict[str, Any]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", bytes(13))]
    for name, card in texts.items():
        encoded = base64.b64encode(json.dumps(card).encode())
        parts.append(chunk(b"tEXt", name.encode() + b"\0" + encoded))
    return b"".join([*parts, chunk(b"IEND", b"")])


def v2(**fields: Any) -> dict[str, Any]:
    return {"spec": "chara_card_v2", "spec_version": "2.0", "data": {**DATA, **fields}}


def persona_of(card: Card) -> str:
    text: str = json.loads(card.persona.json)["content"]
    return text


def greetings_of(card: Card) -> list[str]:
    return [json.loads(one.json)["content"] for one in card.greetings]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(v2()).encode(),
        b"\xef\xbb\xbf" + json.dumps(v2()).encode(),
        json.dumps(DATA).encode(),
        json.dumps({**v2(), "spec": "chara_card_v3", "spec_version": "3.0"}).encode(),
        picture(chara=v2()),
        picture(chara=v2(name="The old one"), ccv3={**v2(), "spec": "chara_card_v3"}),
    ],
)
def test_every_form_of_a_card_is_read(data: bytes) -> None:
    """V1, V2, V3; as JSON or in a picture, where the newest form counts."""
    card = read_card(data)

    assert "Eli" == card.name
    assert persona_of(card).startswith("Write as Eli.")
    assert "Eli keeps a lighthouse." in persona_of(card)
    assert ["Hello the user, I am Eli.", "Come in, the user."] == greetings_of(card)


def test_no_users_name_gets_into_the_persona() -> None:
    """It is shared; the greeting is not."""
    card = read_card(json.dumps(v2()).encode(), user_name="Ada")

    assert "Ada" not in persona_of(card)
    assert "The user visits the user." not in persona_of(card)
    assert "the user visits the user." in persona_of(card)
    assert "Hello Ada, I am Eli." == greetings_of(card)[0]


def test_a_chinese_card_has_chinese_words() -> None:
    """The labels, and who the user is."""
    card = read_card(
        json.dumps(
            {
                "name": "艾莉",
                "description": "{{char}}住在灯塔里，等着{{user}}。",
                "personality": "安静",
                "first_mes": "你好，{{user}}。",
            }
        ).encode()
    )

    assert "艾莉住在灯塔里，等着用户。\n\n性格：安静" == persona_of(card)
    assert ["你好，用户。"] == greetings_of(card)


def test_the_nickname_of_v3_is_the_name() -> None:
    """As the specification has it."""
    assert "Lee keeps a lighthouse." in persona_of(read_card(json.dumps(v2(nickname="Lee")).encode()))


def test_no_macro_and_no_marker_is_left() -> None:
    """What other programs fill in or cut at is not for a model to read."""
    card = read_card(json.dumps(v2(description="a {{// a note }}b", name="A\\1{{x}}")).encode())

    assert "a b" in persona_of(card)
    assert not any(
        one in persona_of(card).lower() for one in ("{{char}}", "{{user}}", "{{original}}", "<start>")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no character card"),
        (b"[]", "no character card"),
        (b"{}", "has a name"),
        (b'{"name": 5}', "has a name"),
        (picture(), "no character card in this picture"),
        (picture(chara=v2())[:-20], "cut off"),
        (picture(chara=v2()).replace(b"chara\0", b"chara\0!"), "cut off"),
    ],
)
def test_what_is_no_card_is_refused(data: bytes, reason: str) -> None:
    """In words that say why."""
    with pytest.raises(CardUnreadable, match=reason):
        read_card(data)


@given(st.binary(max_size=200) | st.builds(lambda tail: b"\x89PNG\r\n\x1a\n" + tail, st.binary(max_size=200)))
def test_no_file_breaks_the_reader(data: bytes) -> None:
    """It is a card, or it is refused."""
    with contextlib.suppress(CardUnreadable):
        assert read_card(data).name


def test_a_card_is_the_beginning_of_a_conversation() -> None:
    """The first greeting is its turn, the others are versions of it, in their order."""
    start, whole = events(read_card(json.dumps(v2()).encode()))
    assert isinstance(start, Start)
    assert isinstance(whole, Whole)
    turns = sorted([whole.group.turn, *whole.group.versions], key=lambda turn: turn.at)

    assert [whole.group.turn] == turns[:1]
    assert 2 == len(turns)
    assert start.beginning.owner.character
    assert [start] == list(events(read_card(json.dumps(v2(first_mes="", alternate_greetings=[])).encode())))
