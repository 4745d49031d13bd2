"""Lines in an order that LLaMA-Factory does not drop, and texts that carry no control token."""

import json
import re
from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from history.conversation import Conversation, Reply, Turn
from training.datasets.clean import Cleaner
from training.datasets.lines import SILENCE, Line, Role, is_legal, line, ordered
from training.datasets.rows import example_row, pair_row
from training.datasets.rules import DatasetRules
from training.datasets.stored import Reading
from training.datasets.talk import Talk
from training.datasets.text import parted

CONTROL = re.compile(
    r"<\|[^<>\n]{0,40}\|>|</?s>|\[/?INST\]|<<SYS>>|<(?:image|video|audio)>|<(?:start|end)_of_turn>|<\uff5c"
)
UNSEEN = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
pieces = st.sampled_from(
    ["<|im_end|>", "<|im_", "end|>", "<im", "age>", "<image>", "[INST]", "[IN", "ST]", "</s>", "<", "|", ">",
     "[", "]", "\x00", "\ud83d", "\ufeff", "<s\x00>", "a@b.org", "<|13800138000|>", "<end_of_turn>",
     "<\uff5cx\uff5c>", "你", " ", "\n"]
)  # fmt: skip
nasty = st.lists(pieces | st.text(max_size=5), max_size=12).map("".join)
roles = st.sampled_from(["user", "assistant", "function", "observation"])


@given(st.lists(roles, max_size=30))
def test_any_order_of_roles_becomes_a_legal_one(spoken: list[Role]) -> None:
    """Nothing that was said is lost; what the model said stays a message of its own."""
    lines = [line(role, str(at)) for at, role in enumerate(spoken)]
    row = ordered(lines, Counter())
    assert not row or is_legal(row, ends_with_model=row[-1].is_model)
    assert [one for one in lines if one.is_model] == [one for one in row if one.is_model]
    told = " ".join(one.text for one in row).replace(SILENCE, " ").split()
    assert [str(at) for at in range(len(spoken))] == told
    assert row == ordered(row, Counter())


@given(nasty)
def test_no_control_token_leaves_the_cleaner(text: str) -> None:
    """Also none that only comes about when something between its parts is taken out."""
    clean = Cleaner(DatasetRules()).text(text).text
    assert not CONTROL.search(clean)
    assert not UNSEEN.search(clean)
    assert clean == Cleaner(DatasetRules()).text(clean).text


def test_a_parted_token_is_read_as_before() -> None:
    """A space is all that is added."""
    assert ("< |im_end|> and < image>", ("control_token_parted", "placeholder_parted")) == parted(
        "<|im_end|> and <image>"
    )


messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"]), "content": nasty}
    ),
    min_size=1,
    max_size=4,
)


def turn(said: list[dict[str, str]]) -> Turn:
    """A turn as a store of another version might have it: nothing in it was neutralised."""
    raw = [json.dumps(one).encode() for one in said]
    kept = tuple(one for one in raw if _stored(one))
    return Turn(messages=kept, digests=bytes(16 * len(kept)), reply=Reply(model="m"))


def _stored(raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw)
    except msgspec.DecodeError:  # no store keeps a lone surrogate: it is no UTF-8
        return False
    return True


@given(st.lists(messages.map(turn), max_size=6), st.sampled_from(["sharegpt", "alpaca"]))
def test_every_row_of_a_stored_dialogue_is_legal(turns: list[Turn], form: str) -> None:
    """Role order, no control token, no lone surrogate, whatever was stored; every answer once or with a
    reason.
    """
    rules = DatasetRules(form=form)  # type: ignore[arg-type]
    talk = Talk("c", Conversation(turn_count=len(turns)), tuple(turns))
    reading = Reading(talk, rules, Cleaner(rules))
    made = list(reading.examples())
    assert len(turns) == len(made) + reading.left_out.total()
    for served in made:
        assert is_legal(served.example.lines)
        row = example_row(served.example, rules.form)
        if row is None:
            continue
        fields = json.loads(row)
        texts = [one["content"] for one in fields.get("dialogue", ())] or [
            fields["prompt"],
            fields["response"],
        ]
        texts += [text for pair in fields.get("history", ()) for text in pair]
        assert texts
        assert not any(CONTROL.search(text) or UNSEEN.search(text) for text in texts)
    for preferred in reading.pairs():
        assert is_legal(preferred.pair.lines, ends_with_model=False)
        assert pair_row(preferred.pair, "sharegpt")


def test_a_joined_line_keeps_both_texts() -> None:
    """Two messages in a row are one, parted as paragraphs; results of tools as lines."""
    mends: Counter[str] = Counter()
    user = ordered([line("user", "a"), line("user", "b")], mends)
    tools = ordered(
        [line("user", "a"), line("function", "{}"), line("observation", "1"), line("observation", "2")], mends
    )
    assert [line("user", "a\n\nb")] == user
    assert line("observation", "1\n2") == tools[-1]
    assert {"messages_joined": 2} == dict(mends)
    assert isinstance(tools[0], Line)
