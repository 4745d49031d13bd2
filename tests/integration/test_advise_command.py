"""`friendo advise` as a process: the store, files and made-up people; interrupted and gone on; on a node."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Valkey
from tests.likelihood_node import likelihood_node

ROOT = Path(__file__).parents[2]
WITHIN_S = 100.0


def command(folder: Path, *arguments: object) -> list[str]:
    outputs = ("--html", folder / "advice.html", "--json", folder / "advice.json")
    return [sys.executable, "-m", "gateway", "advise", *map(str, (*arguments, *outputs))]


def environment(store: str = "redis://127.0.0.1:1/0") -> dict[str, str]:
    return {**os.environ, "FRIENDO__STORE__URL": store, "COLUMNS": "100"}


def advise(folder: Path, *arguments: object, fails: bool = False, store: str = "") -> tuple[str, str]:
    """What the command prints, and what it says beside it."""
    ran = subprocess.run(
        command(folder, *arguments),
        env=environment(store) if store else environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert (ran.returncode != 0) is fails, ran.stderr
    return ran.stdout, ran.stderr


def figures(folder: Path) -> dict[str, Any]:
    text = (folder / "advice.json").read_text()
    # Sums of another order differ in their last digits.
    found: dict[str, Any] = json.loads(text, parse_float=lambda digits: round(float(digits), 9))
    return found


def dialogue(turns: int, name: str, *, back: int = 4) -> dict[str, Any]:
    """A line of a file: turns whose replies repeat two words of `back` turns ago."""
    messages = [{"role": "system", "content": "You are Ada. " * 20}]
    for at in range(turns):
        messages.append({"role": "user", "content": f"{name}{at} asks"})
        reply = f"a{name}{at} b{name}{at} a{name}{at - back} b{name}{at - back}"
        messages.append({"role": "assistant", "content": reply})
    return {"messages": messages}


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_made_up_people_get_advice_a_page_and_figures(tmp_path: Path) -> None:
    """And the configured window is among those that were tried."""
    said, beside = advise(tmp_path, "--generate", 12, "--seed", 5)
    found = figures(tmp_path)
    advice = found["advice"]

    assert f"max_turns {advice['max_turns']}, summary of" in said
    assert "made up" in said
    assert "seed 5" in said
    assert "replaying" in beside
    assert (tmp_path / "advice.html").read_text().startswith("<!doctype html>")
    assert any(one["rule"]["max_tokens"] for one in found["windows"])
    costs = {one["rule"]["max_turns"]: one["cost_per_turn"] for one in found["windows"]
             if one["rule"]["policy"] == "stepped" and one["rule"]["min_turns"] == 20
             and not one["rule"]["max_tokens"]}  # fmt: skip
    assert advice["cost"] <= 1.03 * min(costs.values())


def test_a_file_is_read_and_its_wrong_lines_are_counted(tmp_path: Path) -> None:
    """Nobody knows when its turns were said, and that is said; so is that tokens are estimates."""
    lines = (dialogue(30, "x"), "{", dialogue(60, "y"))
    said, _ = advise(tmp_path, "--file", written(tmp_path / "talk.jsonl", *lines), "--min-turns", 4)
    found = figures(tmp_path)

    assert (found["traffic"]["dialogues"], found["traffic"]["turns"]) == (2, 90)
    assert found["wrong_lines"] == 1
    assert found["p_cold_from"] == "unknown"
    assert found["advice"]["min_turns"] == 4
    assert found["recall_from"] == "own"
    assert "1 lines could not be read" in said
    assert "are estimated" in said


def test_the_store_and_its_export_get_the_same_advice(valkey: Valkey, tmp_path: Path) -> None:
    """Conversations of one tenant only; nothing in the store is changed."""
    file = written(tmp_path / "talk.jsonl", dialogue(40, "x"), dialogue(25, "y"))
    imports = [sys.executable, "-m", "gateway", "conversations"]
    env = environment(valkey.url)

    def conversations(*arguments: str) -> str:
        return subprocess.run(
            [*imports, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    conversations("import", str(file), "--user", "ada")
    conversations("import", str(file), "--user", "bo", "--tenant", "other")
    before = conversations("export", "--user", "ada")
    advise(tmp_path, "--min-turns", 5, store=valkey.url)
    stored = figures(tmp_path)
    export = written(tmp_path / "export.jsonl", *before.splitlines())
    advise(tmp_path, "--min-turns", 5, "--file", export)
    exported = figures(tmp_path)

    assert stored["traffic"]["turns"] == 65
    assert before == conversations("export", "--user", "ada")
    for name in ("traffic", "advice", "windows"):
        assert stored[name] == exported[name]


def test_what_was_interrupted_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the replay; the second run does not read again."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    state = tmp_path / "state"
    arguments = ("--generate", 150, "--state", state)
    running = subprocess.Popen(
        command(one, *arguments),
        env=environment(),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    beside = ""
    while "replaying" not in beside:
        beside += running.stderr.readline()
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    _, rest = running.communicate(timeout=WITHIN_S)
    _, second = advise(one, *arguments)
    advise(other, "--generate", 150)

    assert running.returncode == 130
    assert f"goes on from {state}" in rest
    assert "reading" not in second
    assert figures(one) == figures(other)


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    advise(tmp_path, "--generate", 3, "--state", state)
    _, other = advise(tmp_path, "--generate", 4, "--state", state, fails=True)
    state.write_bytes(b"x")
    _, broken = advise(tmp_path, "--generate", 3, "--state", state, fails=True)

    assert "belongs to another source" in other
    assert "no state of friendo advise" in broken


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--generate", 3, "--file", __file__), "either --file or --generate"),
        (("--generate", 3, "--node", "vllm=http://127.0.0.1:1"), "--node and --model go together"),
        (("--generate", 3, "--assume", "r=0.1"), "do you mean 'r0'"),
        (("--generate", 3, "--assume", "p_cold=2"), "p_cold must lie between 0 and 1"),
        (("--generate", 3, "--assume", "block"), "--assume takes NAME=VALUE"),
        (("--file", __file__), "no dialogue can be read"),
        (("--generate", 3, "--limit", 2), "more than --limit"),
        (("--generate", 3, "--quality"), "--quality asks a model"),
        (("--generate", 3, "--state", "/nowhere/at/all"), "the folder of /nowhere/at/all does not exist"),
        (("--generate", 3, "--node", "vllm=http://127.0.0.1:1", "--model", "m"), "cannot be reached"),
        (("--generate", 3, "--node", "http://127.0.0.1:1", "--model", "m"), "--node takes ENGINE=URL"),
        ((), "the store could not be looked through"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, arguments: tuple[object, ...], said: str) -> None:
    printed, beside = advise(tmp_path, *arguments, fails=True)
    assert said in " ".join(beside.split())
    assert "Traceback" not in beside
    assert "" == printed


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_quality_sets_min_turns(tmp_path: Path, engine: str) -> None:
    """Replies repeat what was said four turns ago; a second run asks the node for no reply again."""
    file = written(tmp_path / "talk.jsonl", *(dialogue(24, name) for name in "uvwxyz"))
    state = tmp_path / "state"
    path = {"vllm": "/v1/completions", "sglang": "/generate"}[engine]
    with likelihood_node(engine) as node:
        arguments = ("--file", file, "--node", f"{engine}={node.url}", "--model", "m", "--quality",
                     "--assume", "quality_replies=12", "--assume", "r0=0.1", "--state", state)  # fmt: skip
        said, _ = advise(tmp_path, *arguments)
        found = figures(tmp_path)
        asked = sum(one == path for one, _ in node.asked)
        advise(tmp_path, *arguments)
        asked_again = sum(one == path for one, _ in node.asked) - asked

    assert found["advice"]["min_turns_from"] == "quality"
    assert found["quality"][0]["knee"] == 5  # of the Ns that are tried, the first that holds four
    assert found["advice"]["min_turns"] == 5
    assert found["counts"] == "counted by the node"
    assert "behind 5 turns" in said
    assert asked > 0
    assert asked_again == 0


def test_a_model_that_the_node_does_not_serve_is_named(tmp_path: Path) -> None:
    """SGLang would answer for it all the same, with another one."""
    with likelihood_node("sglang") as node:
        named = ("--node", f"sglang={node.url}", "--model", "other")
        _, beside = advise(tmp_path, "--generate", 3, *named, fails=True)
    assert "it does not serve 'other', but m" in " ".join(beside.split())
