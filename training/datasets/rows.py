"""Examples and pairs as rows of LLaMA-Factory's files, and their registration in dataset_info.json. Pure.

Every tag is given: a `tags` block that leaves one out sets it to nothing, and rows with it are dropped. Every
row has every column: a column that no row has ends the trainer with a KeyError.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from training.datasets.lines import SILENCE, Example, Line, Pair
from training.datasets.rules import Form

TRAIN, EVALUATION, PREFERENCES = "role_dialogues", "role_dialogues_eval", "role_preferences"
PREFERENCES_EVALUATION = "role_preferences_eval"
FILES = {
    TRAIN: "train.jsonl",
    EVALUATION: "eval.jsonl",
    PREFERENCES: "preferences.jsonl",
    PREFERENCES_EVALUATION: "preferences_eval.jsonl",
}
INFO = "dataset_info.json"

_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "observation",
    "function_tag": "function",
    "system_tag": "system",
}
_encode = msgspec.json.encode


def example_row(example: Example, form: Form) -> bytes | None:
    """The row of an example; None if the form cannot hold it."""
    if form == "sharegpt":
        return _sharegpt(example.lines, example.system, example.tools, b"")
    asked = _alpaca(example.lines[:-1], example.lines[-1:])
    if asked is None:
        return None
    return _encode({**asked, "response": example.lines[-1].text, "system": example.system}) + b"\n"


def pair_row(pair: Pair, form: Form) -> bytes | None:
    """The row of a pair; None if the form cannot hold it."""
    if form == "sharegpt":
        more = b',"chosen":%b,"rejected":%b' % (pair.chosen.json, pair.rejected.json)
        return _sharegpt(pair.lines, pair.system, pair.tools, more)
    asked = _alpaca(pair.lines, (pair.chosen, pair.rejected))
    if asked is None:
        return None
    chosen = {"chosen": pair.chosen.text, "rejected": pair.rejected.text}
    return _encode({**asked, **chosen, "system": pair.system}) + b"\n"


def info(names: Sequence[str], form: Form) -> bytes:
    """dataset_info.json for these datasets, in ASCII: LLaMA-Factory opens it without an encoding."""
    return json.dumps({name: _registration(name, form) for name in names}, indent=2).encode() + b"\n"


def _registration(name: str, form: Form) -> dict[str, Any]:
    ranking = name in (PREFERENCES, PREFERENCES_EVALUATION)
    pair = {"chosen": "chosen", "rejected": "rejected"} if ranking else {}
    entry: dict[str, Any] = {"file_name": FILES[name], "formatting": form}
    if ranking:
        entry["ranking"] = True
    if form == "sharegpt":
        columns = {"messages": "dialogue", "system": "system", "tools": "tools"}
        return {**entry, "columns": {**columns, **pair}, "tags": _TAGS}
    columns = {"prompt": "prompt", "query": "query", "history": "history", "system": "system"}
    return {**entry, "columns": {**columns, **(pair or {"response": "response"})}}


def _sharegpt(lines: Sequence[Line], system: str, tools: str, more: bytes) -> bytes:
    dialogue = b",".join([one.json for one in lines])
    return b'{"dialogue":[%b],"system":%b,"tools":%b%b}\n' % (dialogue, _encode(system), _encode(tools), more)


def _alpaca(prompt: Sequence[Line], answers: Sequence[Line]) -> dict[str, Any] | None:
    """A prompt, and the pairs before it; None where a tool has a part in it."""
    if any(one.role in ("function", "observation") for one in (*prompt, *answers)):
        return None
    history = [[asked.text, told.text] for asked, told in zip(prompt[:-1:2], prompt[1::2], strict=True)]
    return {"prompt": prompt[-1].text or SILENCE, "query": "", "history": history}
