"""What we write, read by LLaMA-Factory's own loader: not one example is dropped, and what counts is the
answer.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.engines.places import Places
from history.conversation import Conversation, Reply, Turn
from history.message import message
from training.datasets.folder import DatasetFolder, manifest_of
from training.datasets.gathering import Gathering
from training.datasets.preparing import Upload, prepare_upload
from training.datasets.rules import DatasetRules
from training.datasets.talk import Talk
from training.llamafactory import INSTALL_COMMAND, default_folder

READER = Path(__file__).parent / "llamafactory_reader.py"
PERSONA = message({"role": "system", "content": "You are Mira, who keeps a lighthouse."}).json
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look somewhere.", "parameters": {}}}


@dataclass(frozen=True)
class Reader:
    """LLaMA-Factory's environment, and the model whose tokenizer reads."""

    python: Path
    model: Path

    def read(self, folder: Path, name: str, *, stage: str = "sft", mask: bool) -> dict[str, Any]:
        command = (
            str(self.python),
            str(READER),
            str(folder),
            name,
            stage,
            str(self.model),
            "yes" if mask else "no",
        )
        env = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "cache"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=False)
        assert ran.returncode == 0, ran.stderr[-4000:]
        found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return found


@pytest.fixture(scope="module")
def reader(engine_places: Places) -> Reader:
    """Fails where LLaMA-Factory is not installed, and says what to do."""
    python = default_folder(os.environ, Path.home()) / "bin" / "python"
    assert python.exists(), f"LLaMA-Factory is not installed; run: {INSTALL_COMMAND}"
    return Reader(python, engine_places.model_folder())


def turn(number: int, *said: dict[str, Any]) -> Turn:
    made = [message(one) for one in said]
    return Turn(
        messages=tuple(one.json for one in made),
        digests=b"".join(one.digest for one in made),
        reply=Reply(model="m"),
        mark=number.to_bytes(8),
    )


def asked(number: int, text: str, answer: str) -> Turn:
    return turn(number, {"role": "user", "content": text}, {"role": "assistant", "content": answer})


def talks() -> list[Talk]:
    """Dialogues with everything in them that LLaMA-Factory drops when it is not mended."""
    odd = (
        turn(0, {"role": "assistant", "content": "Welcome, traveller."}),
        asked(1, "Hello <|im_end|><|im_start|>system", "Hello! \U0001f600 <image> {{content}}"),
        turn(2, {"role": "user", "content": "Are you there?"}),
        asked(3, "你好\u202e [INST]", "I am here."),
        turn(
            4,
            {"role": "user", "content": "Look at the sea."},
            {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "2"}]},
            {"role": "tool", "tool_call_id": "1", "content": "waves"},
            {"role": "tool", "tool_call_id": "2", "content": ""},
            {"role": "assistant", "content": "There are waves."},
        ),
    )
    made = []
    for number in range(60):
        plain = tuple(
            asked(at, f"Question {at} of {number}?", f"Answer {at} of {number}.") for at in range(6)
        )
        turns = odd if number % 3 == 0 else plain
        conversation = Conversation(
            user=f"u{number}",
            persona=PERSONA if number % 2 else b"",
            metadata=b'{"training_consent":"true"}',
            turn_count=len(turns),
        )
        older = asked(99, f"Question 3 of {number}?", f"An older answer, {number}.")
        made.append(Talk(f"c{number}", conversation, turns, branches=((3, (older,)),)))
    return made


def export(folder: Path, form: str) -> Path:
    rules = DatasetRules(form=form, eval_share=0.2, near=0)  # type: ignore[arg-type]
    with DatasetFolder(folder, rules.form) as making:
        gathering = Gathering(rules, "t", making)
        for one in talks():
            gathering.take(one)
        return gathering.finish(now=1.0)


@pytest.mark.parametrize("form", ["sharegpt", "alpaca"])
def test_every_example_of_an_export_survives(tmp_path: Path, reader: Reader, form: str) -> None:
    """In training and evaluation, and only the answer of each counts."""
    made = export(tmp_path, form)
    files = manifest_of(made).files
    for name, file in (("role_dialogues", "train.jsonl"), ("role_dialogues_eval", "eval.jsonl")):
        found = reader.read(made, name, mask=True)
        rows = [json.loads(row) for row in (made / file).read_text().splitlines()]
        assert files[file].rows == found["examples"] == len(rows) > 20
        answers = [row["dialogue"][-1]["content"] if form == "sharegpt" else row["response"] for row in rows]
        shown = found["rows"]
        assert [f"{answer}<|im_end|>\n" for answer in answers[: len(shown)]] == [
            one["counts"] for one in shown
        ]


@pytest.mark.parametrize("form", ["sharegpt", "alpaca"])
def test_every_pair_of_an_export_survives(tmp_path: Path, reader: Reader, form: str) -> None:
    """In LLaMA-Factory's ranking form, which DPO reads."""
    made = export(tmp_path, form)
    found = reader.read(made, "role_preferences", stage="dpo", mask=False)
    assert manifest_of(made).files["preferences.jsonl"].rows == found["examples"] > 20
    assert all(one["counts"].startswith("Answer 3 of ") for one in found["rows"])


def test_the_model_reads_the_prompt_that_was_served(tmp_path: Path, reader: Reader) -> None:
    """Token for token what the serving template makes of the same messages, where nothing had to be
    mended.
    """
    made = export(tmp_path, "sharegpt")
    found = reader.read(made, "role_dialogues", mask=True)
    rows = [json.loads(row) for row in (made / "train.jsonl").read_text().splitlines()]
    plain = [
        (row, one)
        for row, one in zip(rows, found["rows"], strict=False)
        if row["system"] and not any(line["role"] in ("function", "observation") for line in row["dialogue"])
    ]
    assert len(plain) > 20
    for row, one in plain:
        said = [{"role": "system", "content": row["system"]}, *row["dialogue"]]
        served = "".join(f"<|im_start|>{line['role']}\n{line['content']}<|im_end|>\n" for line in said)
        assert served == one["text"]


@pytest.mark.parametrize(
    ("method", "record"),
    [
        (
            "supervised",
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        ),
        (
            "supervised",
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "1", "content": "waves"},
                    {"role": "assistant", "content": "b", "weight": 1},
                    {"role": "user", "content": "c"},
                    {"role": "assistant", "content": "d", "weight": 0},
                    {"role": "user", "content": "e"},
                    {"role": "assistant", "content": "f"},
                ],
                "tools": [TOOL],
            },
        ),
        ("supervised", {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}),
        (
            "supervised",
            {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]], "system": None},
        ),
        (
            "dpo",
            {
                "input": {"messages": [{"role": "user", "content": "a"}], "tools": [TOOL]},
                "preferred_output": [{"role": "assistant", "content": "b"}],
                "non_preferred_output": [{"role": "assistant", "content": "c"}],
            },
        ),
    ],
)
def test_every_record_of_an_upload_survives(
    tmp_path: Path, reader: Reader, method: str, record: dict[str, Any]
) -> None:
    """The trainer's number of examples is the one that was prepared."""
    path = tmp_path / "upload.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for _ in range(7)))
    upload = Upload(path, path.name)
    made = prepare_upload(upload, None, tmp_path / "made", method=method, rules=DatasetRules())  # type: ignore[arg-type]
    stage = "dpo" if method == "dpo" else "sft"
    found = reader.read(made.folder, made.train, stage=stage, mask=made.mask_history)
    assert made.examples == found["examples"] > 0
