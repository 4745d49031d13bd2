"""`friendo datasets` over a real Valkey: dialogues in, a dataset out, and files from elsewhere looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from history.conversation import ConversationKey
from history.items import items_of
from history.redis_store import RedisStore
from tests.conftest import Valkey
from training.datasets.folder import datasets_of_user

ROOT = Path(__file__).parents[2]


def friendo(valkey: Valkey | None, *arguments: object, fails: bool = False) -> tuple[str, str]:
    """What the command prints, and what it says beside it."""
    command = [sys.executable, "-m", "gateway", *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "140"}
    if valkey is not None:
        env["FRIENDO__STORE__URL"] = valkey.url
    ran = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert (ran.returncode == 1) is fails, ran.stderr
    assert ran.returncode in (0, 1), ran.stderr
    return ran.stdout, ran.stderr


def talk(valkey: Valkey, folder: Path, name: str, count: int, *, user: str = "ada") -> str:
    """A conversation of so many turns in the store; its id."""
    file = folder / f"{name}.jsonl"
    said = [{"role": "system", "content": "You are Mira."}]
    for number in range(count):
        said += [
            {"role": "user", "content": f"{name} asks {number}, from {name}@example.org"},
            {"role": "assistant", "content": f"Mira answers {name} for the {number}th time."},
        ]
    file.write_text("".join(json.dumps(one) + "\n" for one in said))
    return friendo(valkey, "conversations", "import", file, "--user", user)[0].strip()


async def agree(valkey: Valkey, *names: str, says: bytes = b'{"training_consent":"true"}') -> None:
    """What `POST /v1/conversations/{id}` does with metadata."""
    store = RedisStore(valkey.url)
    for name in names:
        assert await store.describe(ConversationKey("default", name), says)
    await store.close()


async def rate(valkey: Valkey, name: str, turn: int, rating: str) -> None:
    store = RedisStore(valkey.url)
    key = ConversationKey("default", name)
    turns = await store.read(key, turn, turn + 1)
    assert await store.rate(key, items_of(turns[0], turn)[-1].id, json.dumps({"rating": rating}).encode())
    await store.close()


def rows(folder: Path, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(row) for row in (folder / name).read_text().splitlines()]


async def test_dialogues_become_a_dataset(valkey: Valkey, tmp_path: Path) -> None:
    """Of those who agreed, each answer once, nothing personal in it, and the table says what was left out."""
    yes, bob = talk(valkey, tmp_path, "yes", 5), talk(valkey, tmp_path, "bob", 3, user="bob")
    no = talk(valkey, tmp_path, "no", 4)
    await agree(valkey, yes, bob)
    await agree(valkey, no, says=b'{"training_consent":"no"}')
    await rate(valkey, yes, 2, "down")
    out = tmp_path / "datasets"
    printed, told = friendo(valkey, "datasets", "export", "--out", out, "--eval-share", "0")
    folder = Path(printed.strip())

    assert out == folder.parent
    assert 7 == len(rows(folder))
    assert {"You are Mira."} == {row["system"] for row in rows(folder)}
    assert "example.org" not in (folder / "train.jsonl").read_text()
    assert any("from [email]" in line["content"] for row in rows(folder) for line in row["dialogue"])
    for said in ("7 examples", "left out: no_consent", "left out: rated_down", "found: email"):
        assert said in told
    assert [folder.name] == [one.dataset for one in datasets_of_user(out, "default", "bob")]

    exported = tmp_path / "export.jsonl"
    friendo(valkey, "conversations", "export", "--user", "ada", "--branches", "--output", exported)
    by_file, _ = friendo(None, "datasets", "export", "--file", exported, "--out", out, "--eval-share", "0")
    assert [row for row in rows(folder) if "bob" not in str(row)] == rows(Path(by_file.strip()))


async def test_an_empty_dataset_is_said(valkey: Valkey, tmp_path: Path) -> None:
    """Nobody agreed: the status is 1, and the table says why."""
    talk(valkey, tmp_path, "no", 4)
    _, told = friendo(valkey, "datasets", "export", "--out", tmp_path / "datasets", fails=True)
    assert "No example is in it" in told
    assert "left out: no_consent" in told


async def test_other_tenants_are_not_in_it(valkey: Valkey, tmp_path: Path) -> None:
    """Though they lie in the same store."""
    await agree(valkey, talk(valkey, tmp_path, "yes", 2))
    arguments = ("datasets", "export", "--out", tmp_path / "datasets", "--tenant", "other")
    _, told = friendo(valkey, *arguments, fails=True)
    assert "0 examples" in told


async def test_an_evaluation_shares_nothing_with_it(valkey: Valkey, tmp_path: Path) -> None:
    """A dialogue that says thirteen words in a row of an evaluation file is left out, a shorter likeness is
    not.
    """
    await agree(valkey, talk(valkey, tmp_path, "yes", 2), talk(valkey, tmp_path, "other", 2, user="bob"))
    evaluation = tmp_path / "evaluation.jsonl"
    arguments = ("--out", tmp_path / "datasets", "--without", evaluation, "--near", "0", "--eval-share", "0")
    for response, left in (
        ("Mira answers other for the 1th time.", 4),
        ('"yes asks 1, from [email]"', 4),
    ):
        evaluation.write_text(json.dumps({"prompt": "Who?", "response": response}))
        printed, _ = friendo(valkey, "datasets", "export", *arguments)
        assert left == len(rows(Path(printed.strip())))
    long = talk(valkey, tmp_path, "long and winding road that leads to a door which never was", 1)
    await agree(valkey, long)
    text = "long and winding road that leads to a door which never was asks"
    evaluation.write_text(json.dumps({"prompt": text, "response": f"{text} 0"}))
    printed, told = friendo(valkey, "datasets", "export", *arguments)
    assert "left out: contaminated" in told
    assert 4 == len(rows(Path(printed.strip())))


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--form", "csv", "form"), ("--pairs", "some", "pairs"), ("--personal", "hide", "personal")],
)
def test_a_wrong_option_is_named(tmp_path: Path, option: str, value: str, said: str) -> None:
    """Before anything is opened."""
    _, told = friendo(None, "datasets", "export", "--out", tmp_path, option, value, fails=True)
    assert said in told


def test_a_file_is_checked_record_by_record(tmp_path: Path) -> None:
    """Problems on standard output and status 1; what would be mended beside it."""
    file = tmp_path / "train.jsonl"
    good = {"messages": [{"role": "user", "content": "a<|im_end|>"}, {"role": "assistant", "content": "b"}]}
    file.write_text(json.dumps(good) + "\n")
    printed, told = friendo(None, "datasets", "check", file)
    assert "1 records of the form openai" in printed
    assert "mended: train.jsonl, record 1: control token parted" in told

    file.write_text(json.dumps(good) + "\n" + json.dumps({"messages": []}) + "\n")
    printed, _ = friendo(None, "datasets", "check", file, fails=True)
    assert ["train.jsonl, record 2: the dialogue is empty"] == printed.splitlines()
