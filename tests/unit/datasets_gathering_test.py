"""A whole dataset of stored conversations: who is in it, what is left out and why, and how it is found
again.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.conversation import Conversation, Reply, Turn
from history.items import items_of
from history.message import message
from training.datasets.folder import DatasetFolder, check_files, datasets_of_user, manifest_of
from training.datasets.gathering import Gathering
from training.datasets.likeness import Evaluation
from training.datasets.manifest import Manifest
from training.datasets.rules import REASONS, DatasetRules
from training.datasets.talk import Talk, consents
from training.errors import BadDataset

YES = b'{"training_consent":"true"}'
RULES = DatasetRules(eval_share=0.0)


def turn(user: str, answer: str, *, at: int = 0, mark: bytes = b"m", **fields: Any) -> Turn:
    made = [message({"role": "user", "content": user}), message({"role": "assistant", "content": answer})]
    return Turn(
        messages=tuple(one.json for one in made),
        digests=b"".join(one.digest for one in made),
        reply=Reply(model="m"),
        mark=mark + bytes([at]),
        **fields,
    )


def talk(
    name: str,
    *turns: Turn,
    user: str = "ada",
    metadata: bytes = YES,
    rated: dict[int, str] | None = None,
    **fields: Any,
) -> Talk:
    ratings = {
        items_of(turns[at], at)[-1].id: b'{"rating":"%b"}' % rating.encode()
        for at, rating in (rated or {}).items()
    }
    conversation = Conversation(user=user, metadata=metadata, turn_count=len(turns))
    return Talk(name, conversation, turns, ratings=ratings, **fields)


def rows_of(folder: Path, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(row) for row in (folder / name).read_bytes().splitlines()]


def gathered(
    folder: Path, *talks: Talk, rules: DatasetRules = RULES, evaluation: Evaluation | None = None
) -> tuple[Path, Manifest]:
    with DatasetFolder(folder, rules.form) as making:
        gathering = Gathering(rules, "t", making, evaluation)
        for one in talks:
            gathering.take(one)
        made = gathering.finish(now=1.0)
    return made, manifest_of(made)


def answers(folder: Path, name: str = "train.jsonl") -> list[str]:
    return [row["dialogue"][-1]["content"] for row in rows_of(folder, name)]


@pytest.mark.parametrize(
    ("metadata", "agreed"),
    [
        (YES, True),
        (b'{"a":"b","training_consent":"true"}', True),
        (b"", False),
        (b"{}", False),
        (b'{"training_consent":true}', False),
        (b'{"training_consent":"True"}', False),
        (b'{"training_consent":"yes"}', False),
        (b'{"training_consent":["true"]}', False),
        (b'{"x":{"training_consent":"true"}}', False),
        (b"[1]", False),
    ],
)
def test_only_the_string_true_is_consent(metadata: bytes, agreed: bool) -> None:
    """Nothing that looks like it, and nothing that is not stored."""
    assert agreed is consents(metadata)


def test_ratings_decide_what_counts(tmp_path: Path) -> None:
    """An answer with a thumb down is context and never an answer; on demand, only liked ones are."""
    one = talk(
        "c", turn("a", "A", at=0), turn("b", "B", at=1), turn("c", "C", at=2), rated={1: "down", 2: "up"}
    )
    every, _ = gathered(tmp_path, one)
    liked, manifest = gathered(tmp_path, one, rules=DatasetRules(eval_share=0, only_liked=True))
    assert ["A", "C"] == answers(every)
    assert "B" == rows_of(every)[1]["dialogue"][3]["content"]
    assert ["C"] == answers(liked)
    assert {"rated_down": 1, "not_liked": 1} == manifest.left_out


def test_what_was_regenerated_becomes_pairs(tmp_path: Path) -> None:
    """The active answer is preferred, unless a rating says otherwise; another question makes no pair."""
    turns = (turn("a", "A", at=0), turn("b", "B", at=1))
    older, disliked = turn("b", "older", at=1, mark=b"o"), turn("b", "B", at=1, mark=b"s")
    other = turn("else", "older", at=1, mark=b"e")
    made, _ = gathered(tmp_path, talk("c", *turns, branches=((1, (older,)), (1, (other,)), (1, (disliked,)))))
    pairs = rows_of(made, "preferences.jsonl")
    assert [("B", "older")] == [(one["chosen"]["content"], one["rejected"]["content"]) for one in pairs]
    assert ["a", "A", "b"] == [one["content"] for one in pairs[0]["dialogue"]]
    assert ["A", "B"] == answers(made)

    down, _ = gathered(tmp_path, talk("d", *turns, branches=((1, (older,)),), rated={1: "down"}))
    pairs = rows_of(down, "preferences.jsonl")
    assert [("older", "B")] == [(one["chosen"]["content"], one["rejected"]["content"]) for one in pairs]
    rated = DatasetRules(eval_share=0, pairs="rated")
    none, _ = gathered(tmp_path, talk("e", *turns, branches=((1, (older,)),)), rules=rated)
    assert not (none / "preferences.jsonl").exists()


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    """Each answer is an example or is counted under one reason, and each reason has words."""
    greeting = message({"role": "assistant", "content": "Hi, I am Mira."})
    before = Turn(messages=(greeting.json,), digests=greeting.digest)
    talks = (
        talk("no", turn("a", "A"), metadata=b"{}"),
        talk(
            "c1",
            before,
            turn("a", "A"),
            turn("b", "half", status="incomplete"),
            turn("c", " "),
            turn("d", "D"),
        ),
        talk("c2", turn("a", "same", mark=b"2")),
        talk("c3", turn("a", "same", mark=b"3"), user="bob"),
        talk("c4", turn("I am a@b.org", "Noted."), user="eve"),
        talk("c5", turn("the lighthouse closes at noon on sundays", "Yes."), user="eve"),
    )
    evaluation = Evaluation(5)
    evaluation.add("lighthouse closes at noon on sundays")
    rules = DatasetRules(eval_share=0, personal="drop", max_per_user=2, shared_words=5)
    made, manifest = gathered(tmp_path, *talks, rules=rules, evaluation=evaluation)
    reasons = {
        "no_consent",
        "no_model_answer",
        "incomplete",
        "empty_answer",
        "personal_data",
        "contaminated",
        "over_cap",
    }
    assert reasons == set(manifest.left_out) <= set(REASONS)
    assert ["A", "D", "same"] == answers(made)
    assert "…" == rows_of(made)[0]["dialogue"][0]["content"]
    assert manifest.answers == 3 + sum(manifest.left_out.values()) - manifest.left_out["no_consent"]


def test_near_copies_count_once(tmp_path: Path) -> None:
    """Of dialogues whose answers are nearly the same the first stays."""
    words = [f"word{number}" for number in range(200)]
    first, second = " ".join(words), " ".join([*words[:100], "otherwise", *words[100:]])
    made, manifest = gathered(
        tmp_path, talk("c1", turn("a", first)), talk("c2", turn("b", second), user="bob")
    )
    assert [first] == answers(made)
    assert {"near_duplicate": 1} == manifest.left_out


def test_the_same_dialogues_are_the_same_dataset(tmp_path: Path) -> None:
    """Its id is made of its contents; its files are what the manifest says, or it cannot be used."""
    one = talk("c", turn("a", "A"))
    first, manifest = gathered(tmp_path, one)
    again, _ = gathered(tmp_path, one)
    other, _ = gathered(tmp_path, talk("c", turn("a", "B")))
    assert first == again != other
    assert [] == [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    check_files(first, manifest)
    (first / "train.jsonl").write_bytes(b"{}\n")
    with pytest.raises(BadDataset, match=r"train\.jsonl is not what was exported"):
        check_files(first, manifest)


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    """Neither a dataset nor its pieces."""

    def broken_off() -> None:
        with DatasetFolder(tmp_path, "sharegpt") as making:
            Gathering(RULES, "t", making).take(talk("c", turn("a", "A")))
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        broken_off()
    assert [] == list(tmp_path.iterdir())


def test_a_user_is_found_in_every_dataset(tmp_path: Path) -> None:
    """With conversation, turns and rows, in the tenant's datasets and in nobody else's."""
    ada = talk("c1", turn("a", "A"), turn("b", "B", at=1))
    bob = talk("c2", turn("c", "C"), user="bob")
    both, _ = gathered(tmp_path, ada, bob)
    gathered(tmp_path, bob)
    found = list(datasets_of_user(tmp_path, "t", "ada"))
    assert [both.name] == [one.dataset for one in found]
    assert [("c1", "train", 0, (0, 1))] == [
        (one.conversation, one.file, one.first, one.turns) for one in found[0].sources
    ]
    assert 2 == len(list(datasets_of_user(tmp_path, "t", "bob")))
    assert [] == list(datasets_of_user(tmp_path, "other", "ada"))
    assert [] == list(datasets_of_user(tmp_path / "none", "t", "ada"))
    (both / "manifest.json").write_bytes(b"{}")
    with pytest.raises(BadDataset, match="manifest cannot be read"):
        list(datasets_of_user(tmp_path, "t", "ada"))


users = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.text("xyz ", min_size=1, max_size=6)), max_size=25)


@settings(max_examples=40)
@given(users, st.floats(0, 0.8))
def test_no_user_is_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, str]], share: float
) -> None:
    """Train and eval, pairs included; and gathering what was gathered leaves out the same."""
    folder = tmp_path_factory.mktemp("split")
    older = turn("q", "older", mark=b"o")
    talks = [
        talk(f"c{at}", turn("q", f"{text} {at}"), user=user, branches=((0, (older,)),))
        for at, (user, text) in enumerate(said)
    ]
    made, manifest = gathered(folder, *talks, rules=DatasetRules(eval_share=share))
    sources = [msgspec.json.decode(row) for row in (made / "sources.jsonl").read_bytes().splitlines()]
    train, held = ({one["user"] for one in sources if one["file"] == side} for side in ("train", "eval"))
    assert not train & held
    assert {user for user, _ in said} == train | held
    rows = {name: facts.rows for name, facts in manifest.files.items()}
    assert len(said) == rows["train.jsonl"] + rows["eval.jsonl"]
    assert len(said) == rows.get("preferences.jsonl", 0) + rows.get("preferences_eval.jsonl", 0)
    again, _ = gathered(folder, *talks, *talks, rules=DatasetRules(eval_share=share))
    assert rows_of(made) == rows_of(again)


def test_alpaca_is_refused_where_its_reader_would_end_half_way(tmp_path: Path) -> None:
    """It takes the history's type from the file's beginning; ShareGPT's form has no such column."""
    long = "x" * 1_000_000
    short = [talk(f"c{at}", turn(f"{at} {long}", f"A{at}"), user=f"u{at}") for at in range(9)]
    talks = [*short, talk("last", turn("a", "A"), turn("b", "B", at=1))]
    with pytest.raises(BadDataset, match="export it as sharegpt"):
        gathered(tmp_path, *talks, rules=DatasetRules(form="alpaca", eval_share=0, near=0))
    assert [] == list(tmp_path.iterdir())
    early, _ = gathered(tmp_path, *reversed(talks), rules=DatasetRules(form="alpaca", eval_share=0, near=0))
    made, _ = gathered(tmp_path, *talks, rules=DatasetRules(eval_share=0, near=0))
    assert len(rows_of(early)) == len(rows_of(made)) == 11
