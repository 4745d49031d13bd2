"""Every failure of LLaMA-Factory that was measured is a check before training: refused or mended, by
record.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from training.datasets.checking import Report, check_file
from training.datasets.preparing import Upload, prepare_upload
from training.datasets.rules import DatasetRules
from training.errors import BadDataset
from training.ports import Prepared

RULES = DatasetRules(personal="keep")
USER, ANSWER = {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"}
GOOD = {"messages": [USER, ANSWER]}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def chat(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def written(folder: Path, content: bytes | list[Any]) -> Path:
    path = folder / "train.jsonl"
    if isinstance(content, list):
        content = "".join(json.dumps(one) + "\n" for one in content).encode()
    path.write_bytes(content)
    return path


def checked(folder: Path, content: bytes | list[Any]) -> Report:
    return check_file(written(folder, content), RULES)


def prepared(folder: Path, content: bytes | list[Any]) -> tuple[Prepared, list[dict[str, Any]]]:
    path = written(folder, content)
    upload = Upload(path, path.name)
    made = prepare_upload(upload, None, folder / "made", method="supervised", rules=RULES)
    rows = (made.folder / "train.jsonl").read_text().splitlines()
    return made, [json.loads(row) for row in rows]


GBK = '{"messages":[{"role":"user","content":"你好，今天天气怎么样"},'.encode("gbk")


@pytest.mark.parametrize(
    ("content", "record", "reason"),
    [
        (b'{"messages": "\xff\xfe', 1, "not UTF-8"),
        (GBK, 1, "seems to be GBK"),
        ("{}".encode("utf-16"), 1, "UTF-16"),
        (b"", 1, "no record"),
        (b"[]", 1, "no record"),
        (b'[{"messages": []}', 1, "does not end"),
        (b'{"a": NaN}', 1, "no JSON"),
        (b'{"a": ', 1, "no JSON"),
        (b'"text"', 1, "a JSON object"),
        ([GOOD, {"text": "once upon a time"}], 2, "its columns"),
        ([GOOD, {"prompt": "Hello?", "response": "Hello!"}], 2, "the records before"),
        ([GOOD, chat()], 2, "dialogue is empty"),
        ([chat(USER, said("assistant", None))], 1, "message 2 has no content"),
        ([chat({"role": "user"}, ANSWER)], 1, "message 1 has no content"),
        ([chat(USER, said("assistant", 7))], 1, "must be a text"),
        ([chat(USER, said("assistant", ""))], 1, "message 2 is empty"),
        ([chat(USER, said("assistant", "\u0000 \ufeff"))], 1, "message 2 is empty"),
        ([chat(said("user", [{"type": "image_url", "image_url": {"url": "x"}}]), ANSWER)], 1, "image_url"),
        ([chat(USER)], 1, "nobody's answer"),
        ([chat(USER, ANSWER, USER)], 1, "nobody's answer"),
        ([chat(USER, said("system", "Be kind."), ANSWER)], 1, "stands before all others"),
        ([chat(said("narrator", "It rains."), ANSWER)], 1, "is no role"),
        ([chat("hello", ANSWER)], 1, "must be an object"),
        ([{"messages": "hello"}], 1, "must be a list"),
        ([chat(USER, ANSWER, tools="[{]")], 1, "tools is no JSON"),
        ([chat(USER, ANSWER, tools={"name": "f"})], 1, "must be a list"),
        ([chat(USER, ANSWER, tools=[{"type": "function"}])], 1, "a function with a name"),
        ([chat(USER, {**ANSWER, "weight": 0})], 1, "no answer in it counts"),
        ([chat(USER, {**ANSWER, "weight": 0.5})], 1, "weight must be 0 or 1"),
        ([chat(USER, said("assistant", "ÄãºÃ°¡ÅóÓÑ"))], 1, "GBK read as Latin-1"),
        ([chat(USER, said("assistant", "锟斤拷锟斤拷"))], 1, "read as GBK"),
        ([chat(USER, said("assistant", "caf\ufffd"))], 1, "U+FFFD"),
        ([{"prompt": None, "response": "Hello!"}], 1, "must be a text"),
        ([{"prompt": "", "query": "", "response": "Hello!"}], 1, "question is empty"),
        ([{"prompt": "Hello?", "response": ["Hello!"]}], 1, "must be a text"),
        ([{"prompt": "Hello?", "response": "Hello!", "history": [["a"]]}], 1, "a question and its answer"),
        (
            [{"conversations": [{"from": "gpt", "value": "Hi."}, {"from": "human", "value": "Hi."}]}],
            1,
            "nobody's",
        ),
        ([{"dialogue": [USER, {"role": "function", "content": "look(1)"}]}], 1, "must be JSON with a name"),
    ],
)
def test_what_cannot_be_mended_is_refused(
    tmp_path: Path, content: bytes | list[Any], record: int, reason: str
) -> None:
    """With the record's number and the reason; preparing says the same as checking."""
    report = checked(tmp_path, content)
    assert [one for one in report.problems if f"record {record}: " in one and reason in one]
    with pytest.raises(BadDataset) as refused:
        prepared(tmp_path, content)
    assert report.problems == refused.value.problems


@pytest.mark.parametrize(
    ("content", "note", "dialogue"),
    [
        (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "byte order mark", ["Hello?", "Hello!"]),
        (b"\xef\xbb\xbf[" + json.dumps(GOOD).encode() + b"]", "byte order mark", ["Hello?", "Hello!"]),
        (
            b'{"messages":[{"role":"user","content":"a\\ud83d"},{"role":"assistant","content":"b"}]}',
            "surrogate",
            ["a", "b"],
        ),
        (
            [chat(said("user", "a<|im_end|>"), ANSWER)],
            "control token",
            ["a<im_end|>".replace("<", "< |"), "Hello!"],
        ),
        ([chat(said("user", "see <image>"), ANSWER)], "placeholder", ["see < image>", "Hello!"]),
        (
            [chat(said("user", "see <video><audio>"), ANSWER)],
            "placeholder",
            ["see < video>< audio>", "Hello!"],
        ),
        ([chat(said("user", "a\u0000b"), ANSWER)], "control character", ["ab", "Hello!"]),
        (
            [chat(said("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), ANSWER)],
            "text parts",
            ["ab", "Hello!"],
        ),
        ([chat(USER, ANSWER, system=None)], "system null", ["Hello?", "Hello!"]),
        ([chat(ANSWER, USER, ANSWER)], "model spoke unasked", ["…", "Hello!", "Hello?", "Hello!"]),
        ([chat(USER, USER, ANSWER)], "messages joined", ["Hello?\n\nHello?", "Hello!"]),
    ],
)
def test_what_can_be_mended_is_mended_and_said(
    tmp_path: Path, content: bytes | list[Any], note: str, dialogue: list[str]
) -> None:
    """The row is what LLaMA-Factory reads as it was meant; the note names the record."""
    made, rows = prepared(tmp_path, content)
    assert [one for one in made.notes if "record 1" in one and note in one]
    assert [dialogue] == [[one["content"] for one in row["dialogue"]] for row in rows]
    assert [("", "")] == [(row["system"], row["tools"]) for row in rows]


def test_a_system_message_and_tools_stand_in_their_columns(tmp_path: Path) -> None:
    """Where LLaMA-Factory looks for them; tools as a JSON text with every field that it asks for."""
    result = {"role": "tool", "tool_call_id": "1", "content": "a lamp"}
    talk = [said("system", "Be kind."), USER, {"role": "assistant", "tool_calls": [CALL]}, result, ANSWER]
    _, rows = prepared(tmp_path, [chat(*talk, tools=[TOOL])])
    tool = {
        "name": "look",
        "description": "",
        "parameters": {"type": "object", "properties": {}, "required": []},
    }
    assert [tool] == json.loads(rows[0]["tools"])
    assert "Be kind." == rows[0]["system"]
    assert ["user", "function", "observation", "assistant"] == [one["role"] for one in rows[0]["dialogue"]]
    assert {"name": "look", "arguments": {"at": 1}} == json.loads(rows[0]["dialogue"][1]["content"])


def test_answers_with_weight_0_are_context_only(tmp_path: Path) -> None:
    """Each one that counts becomes an example of its own, and the trainer has to mask the history."""
    talk = chat(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}, USER, ANSWER)
    made, rows = prepared(tmp_path, [talk, GOOD])
    assert (True, 3) == (made.mask_history, made.examples)
    assert [4, 6, 2] == [len(row["dialogue"]) for row in rows]


def test_without_weights_every_answer_of_a_record_counts(tmp_path: Path) -> None:
    """One record is one example, so that the trainer's number is the user's."""
    made, rows = prepared(tmp_path, [chat(USER, ANSWER, USER, ANSWER), GOOD])
    assert (False, 2, 2) == (made.mask_history, made.examples, len(rows))


def test_problems_are_named_up_to_a_bound(tmp_path: Path) -> None:
    """The rest is counted; a file of nonsense ends early."""
    report = checked(tmp_path, [chat(USER)] * 3000)
    assert 51 == len(report.problems)
    assert "more problems" in report.problems[-1]
    assert report.records < 2000


def test_the_registration_is_ascii_and_has_every_tag(tmp_path: Path) -> None:
    """LLaMA-Factory opens it without an encoding, and a tag that is left out drops rows."""
    made, _ = prepared(tmp_path, [GOOD])
    info = json.loads((made.folder / "dataset_info.json").read_bytes().decode("ascii"))
    tags = (
        "role_tag",
        "content_tag",
        "user_tag",
        "assistant_tag",
        "observation_tag",
        "function_tag",
        "system_tag",
    )
    assert ["role_dialogues"] == list(info)
    assert sorted(tags) == sorted(info["role_dialogues"]["tags"])
    assert {"messages": "dialogue", "system": "system", "tools": "tools"} == info["role_dialogues"]["columns"]
