"""`friendo conversations` over a real Valkey: what is shown, taken out, erased and brought in."""

import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Valkey

ROOT = Path(__file__).parents[2]


def friendo(valkey: Valkey, *arguments: object, fails: bool = False, typed: str = "") -> tuple[str, str]:
    """What the command prints, and what it says beside it."""
    command = [sys.executable, "-m", "gateway", "conversations", *map(str, arguments)]
    env = {**os.environ, "FRIENDO__STORE__URL": valkey.url, "COLUMNS": "100"}
    ran = subprocess.run(
        command, env=env, cwd=ROOT, input=typed, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode != 0) is fails, ran.stderr
    return ran.stdout, ran.stderr


def written(path: Path, *lines: Any) -> Path:
    """A file of these lines."""
    texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("\n".join(texts) + "\n")
    return path


def talk(count: int) -> list[dict[str, str]]:
    """Messages of so many turns."""
    return [
        {"role": role, "content": f"{role} {number}"}
        for number in range(count)
        for role in ("user", "assistant")
    ]


def turns_of(text: str) -> list[dict[str, Any]]:
    """The lines of an export that are turns."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["object"] == "friendo.turn"]


def test_items_are_imported_shown_exported_and_erased(valkey: Valkey, tmp_path: Path) -> None:
    """The whole life of a dialogue that came from elsewhere."""
    file = written(tmp_path / "talk.jsonl", {"role": "system", "content": "You are Eli."}, *talk(450))
    printed, said = friendo(valkey, "import", file, "--user", "ada")
    conversation = printed.strip()
    again, said_again = friendo(valkey, "import", file, "--user", "ada")
    shown, _ = friendo(valkey, "show", conversation, "--turns", "2")
    exported, _ = friendo(valkey, "export", conversation)
    by_user, _ = friendo(valkey, "export", "--user", "ada", "--branches")
    _, erased = friendo(valkey, "erase", conversation, "--yes")
    _, missing = friendo(valkey, "show", conversation, fails=True)

    assert "450 turns were imported, 0 were there already" in said
    assert (conversation, True) == (
        again.strip(),
        "0 turns were imported, 450 were there already" in said_again,
    )
    assert "assistant 449" in shown
    assert "assistant 447" not in shown
    assert "You are Eli." in shown
    assert "ada" in shown
    assert 450 == len(turns_of(exported))
    assert exported == by_user
    assert "Nothing of it is left" in erased
    assert "keys were looked at" in erased
    assert f"there is no conversation '{conversation}'" in missing


def test_an_export_goes_into_another_store(valkey: Valkey, tmp_path: Path) -> None:
    """Under its own id; and out of it again as it was."""
    file = written(tmp_path / "talk.jsonl", *talk(30))
    conversation = friendo(valkey, "import", file, "--id", "conv_mine")[0].strip()
    friendo(valkey, "export", conversation, "--branches", "--output", tmp_path / "export.jsonl")
    friendo(valkey, "erase", conversation, "--yes")
    back = friendo(valkey, "import", tmp_path / "export.jsonl")[0].strip()
    exported, _ = friendo(valkey, "export", back, "--branches")

    assert "conv_mine" == conversation == back
    assert (tmp_path / "export.jsonl").read_text() == exported


def test_an_erasure_asks_first(valkey: Valkey, tmp_path: Path) -> None:
    """Unless it is told not to; an answer that is no yes changes nothing."""
    file = written(tmp_path / "talk.jsonl", *talk(1))
    conversation = friendo(valkey, "import", file, "--user", "ada")[0].strip()
    friendo(valkey, "erase", "--user", "ada", fails=True, typed="n\n")
    friendo(valkey, "show", conversation)
    _, erased = friendo(valkey, "erase", "--user", "ada", typed="y\n")
    _, refused = friendo(valkey, "import", file, "--user", "ada", fails=True)

    assert "Erased 1 conversation(s)" in erased
    assert "erased" in refused


def test_wrong_lines_are_named_and_nothing_is_imported(valkey: Valkey, tmp_path: Path) -> None:
    """Unless they are to be left out."""
    first, second = talk(2)[:2], talk(2)[2:]
    file = written(tmp_path / "talk.jsonl", *first, "{", {"type": "reasoning"}, *second)
    printed, said = friendo(valkey, "import", file, fails=True)
    skipped, told = friendo(valkey, "import", file, "--skip-wrong", fails=True)

    assert "" == printed
    assert f"{file}:3: " in said
    assert f"{file}:4: " in said
    assert "Nothing was imported" in said
    assert "2 turns were imported" in told
    assert 2 == len(turns_of(friendo(valkey, "export", skipped.strip())[0]))


def test_a_sillytavern_chat_with_its_card(valkey: Valkey, tmp_path: Path) -> None:
    """The persona from the card, the dialogue from the chat, its swipes as siblings."""
    card = {"spec": "chara_card_v2", "data": {"name": "Eli", "description": "{{char}} waits for {{user}}."}}
    text = b"chara\0" + base64.b64encode(json.dumps(card).encode())
    chunk = len(text).to_bytes(4) + b"tEXt" + text + zlib.crc32(b"tEXt" + text).to_bytes(4)
    (tmp_path / "card.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    head = {
        "user_name": "Ada",
        "character_name": "Eli",
        "create_date": "2024-01-02@03h04m05s",
        "chat_metadata": {},
    }
    hello = {"name": "Eli", "is_user": False, "mes": "Hello", "swipes": ["Hi", "Hello"], "swipe_id": 1}
    asked = {"name": "Ada", "is_user": True, "mes": "How are you?"}
    file = written(
        tmp_path / "Eli.jsonl", head, hello, asked, {"name": "Eli", "is_user": False, "mes": "Well."}
    )
    conversation = friendo(valkey, "import", file, "--card", tmp_path / "card.png", "--user", "ada")[
        0
    ].strip()
    written(file, head, hello, asked, {"name": "Eli", "mes": "Well."}, {**asked, "mes": "Good."})
    _, grown = friendo(valkey, "import", file, "--user", "ada")
    lines = [
        json.loads(line) for line in friendo(valkey, "export", conversation, "--branches")[0].splitlines()
    ]

    assert "Eli waits for the user." == lines[0]["persona"]["content"]
    assert "1 turns were imported, 2 were there already" in grown
    assert [["Hello"], ["How are you?", "Well."], ["Good."], ["Hi"]] == [
        [message["content"] for message in line["messages"]] for line in lines[1:]
    ]


def test_a_card_alone_begins_a_conversation(valkey: Valkey, tmp_path: Path) -> None:
    """With its greeting, and the others to be selected."""
    card = {
        "name": "Eli",
        "description": "A keeper.",
        "first_mes": "Hello {{user}}.",
        "alternate_greetings": ["Hi."],
    }
    file = written(tmp_path / "card.json", card)
    printed, _ = friendo(valkey, "import", "--card", file, "--user-name", "Ada", "--id", "conv_eli")
    exported, _ = friendo(valkey, "export", printed.strip(), "--branches")
    _, broken = friendo(valkey, "import", "--card", written(tmp_path / "no.json", {"a": 1}), fails=True)

    assert "conv_eli" == printed.strip()
    assert ["Hello Ada.", "Hi."] == [turn["messages"][0]["content"] for turn in turns_of(exported)]
    assert "has a name" in broken


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show",), "Missing argument"),
        (("export",), "name a conversation's id"),
        (("export", "a", "--user", "u"), "name a conversation's id"),
        (("import",), "name a file"),
        (("import", "nowhere.jsonl"), "nowhere.jsonl"),
        (("show", "a", "--redis", "memory"), "--redis"),
        (("show", "a", "--redis", "redis://127.0.0.1:1/0"), "did not answer"),
        (("show", "x" * 300), "256 characters"),
        (("show", "a", "--tenant", "a b"), "tenant"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(valkey: Valkey, arguments: tuple[str, ...], says: str) -> None:
    """Without a traceback."""
    _, said = friendo(valkey, *arguments, fails=True)

    assert says in " ".join(said.replace("│", " ").split())
    assert "Traceback" not in said
