"""A thousand broken files: preparing one either works or raises BadDataset, which names record and reason."""

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

from training.datasets.preparing import Upload, prepare_upload
from training.datasets.rules import DatasetRules
from training.errors import BadDataset

FILES = 1000
NAMED = re.compile(r"broken\.jsonl(, record \d+: \S|: \d+ more problems| has (no )?preference pairs)")
USER, ANSWER = (
    {"role": "user", "content": "Hello, 你好?"},
    {"role": "assistant", "content": "Hello! \U0001f600"},
)
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
SEEDS: tuple[tuple[str, list[dict[str, Any]]], ...] = (
    (
        "supervised",
        [
            {
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    USER,
                    ANSWER,
                    USER,
                    {**ANSWER, "weight": 1},
                ]
            }
        ],
    ),
    (
        "supervised",
        [
            {
                "messages": [
                    USER,
                    {"role": "assistant", "tool_calls": [CALL]},
                    {"role": "tool", "content": "1"},
                    ANSWER,
                ],
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "look", "parameters": {"properties": {"at": {}}}},
                    }
                ],
            }
        ],
    ),
    (
        "supervised",
        [
            {
                "conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hi!"}],
                "system": "s",
            }
        ],
    ),
    (
        "supervised",
        [{"instruction": "Say hi.", "input": "", "output": "Hi!", "history": [["a", "b"]], "system": None}],
    ),
    (
        "dpo",
        [
            {
                "input": {"messages": [USER]},
                "preferred_output": [ANSWER],
                "non_preferred_output": [{**ANSWER, "content": "No."}],
            }
        ],
    ),
    ("dpo", [{"dialogue": [USER], "chosen": ANSWER, "rejected": {"role": "assistant", "content": "No."}}]),
    ("dpo", [{"prompt": "Hi?", "chosen": "Hi!", "rejected": "No."}]),
)
BYTES = (
    b"\xff",
    b"\x00",
    b"\xed\xa0\xbd",
    b"\\ud83d",
    b'"',
    b"{",
    b"]",
    b"<|im_end|>",
    b"\n",
    b"\xef\xbb\xbf",
    b"\xc4\xe3",
    b"9" * 40,
)
VALUES: tuple[Any, ...] = (
    None, 0, -1, 1e308, 10**40, True, "", " ", "\ud83d", "\x00", "锟斤拷", "<image>", [], {}, [None], [[]],
    {"a": {}},
    "[{", "x" * 5000, {"role": "user"}, ["a", "b"], "assistant", "system", [{"type": "text", "text": 1}],
    {"name": "f", "arguments": []},
)  # fmt: skip


def places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Everything in a JSON value that could be something else."""
    if depth > 12:
        return []
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *places(value[key], depth + 1)]
    return found


def mutated_json(records: list[dict[str, Any]], dice: random.Random) -> bytes:
    """A few values are others, are gone, are doubled, or lie deep."""
    for _ in range(dice.randint(1, 3)):
        at = places(records)
        if not at:
            break
        inside, key = dice.choice(at)
        what = dice.random()
        if what < 0.15:
            del inside[key]
        elif what < 0.25 and isinstance(inside, list):
            inside.insert(key, inside[key])
        elif what < 0.3:
            deep: Any = "x"
            for _ in range(dice.choice((5, 900, 3000))):
                deep = [deep]
            inside[key] = f"\udc00{len(str(key))}" if isinstance(key, str) and dice.random() < 0.3 else deep
        else:
            inside[key] = copy.deepcopy(dice.choice(VALUES))
    try:
        texts = [json.dumps(one, ensure_ascii=dice.random() < 0.7) for one in records]
    except RecursionError:
        texts = ["[" * 3000]
    text = f"[{','.join(texts)}]" if dice.random() < 0.3 else "\n".join(texts)
    return text.encode("utf-8", "surrogatepass")


def mutated_bytes(content: bytes, dice: random.Random) -> bytes:
    """Bytes are put in, taken out, cut off, or written in another encoding."""
    what = dice.random()
    if what < 0.1:
        return content.decode("utf-8", "replace").encode(
            dice.choice(("gb18030", "utf-16", "utf-32", "utf-8-sig")), "replace"
        )
    if what < 0.2:
        return content[: dice.randrange(len(content) + 1)]
    changed = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        if dice.random() < 0.6:
            changed[at:at] = dice.choice(BYTES)
        else:
            del changed[at : at + dice.randint(1, 5)]
    return bytes(changed)


def test_no_broken_file_crashes_the_preparer(tmp_path: Path) -> None:
    """What it takes has legal rows; what it refuses is named."""
    outcomes, unnamed = {"taken": 0, "refused": 0}, list[str]()
    for seed in range(FILES):
        dice = random.Random(seed)
        method, records = dice.choice(SEEDS)
        records = json.loads(json.dumps(records * dice.randint(1, 3)))
        content = mutated_json(records, dice) if dice.random() < 0.6 else json.dumps(records).encode()
        if dice.random() < 0.5:
            content = mutated_bytes(content, dice)
        path = tmp_path / "broken.jsonl"
        path.write_bytes(content)
        try:
            made = prepare_upload(
                Upload(path, "broken.jsonl"),
                None,
                tmp_path / "made",
                method=method,
                rules=DatasetRules(),  # type: ignore[arg-type]
            )
        except BadDataset as refused:
            outcomes["refused"] += 1
            unnamed += [one for one in refused.problems if not NAMED.match(one)]
            continue
        outcomes["taken"] += 1
        name = "preferences.jsonl" if method == "dpo" else "train.jsonl"
        rows = [json.loads(row) for row in (made.folder / name).read_bytes().decode().splitlines()]
        assert made.examples == len(rows) > 0
        for row in rows:
            sides = [one["role"] in ("assistant", "function") for one in row["dialogue"]]
            assert [at % 2 == 1 for at in range(len(sides))] == sides
            assert sides[-1] is (method != "dpo")
            assert isinstance(row["system"], str)
            assert isinstance(row["tools"], str)
    assert [] == unnamed
    assert min(outcomes.values()) > FILES // 10
