"""Neutral text: what was said can be no control token and end no block."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.message import message
from history.neutral import inside, neutral, neutral_row, quoted

# Taken from the tokenizers of the families named in `history.neutral`.
TOKENS = (
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>",
    ),
    *(
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|python_tag|>",
        "<|finetune_right_pad_id|>",
        "<|user|>",
        "<|assistant|>",
    ),
    *(
        "<|system|>",
        "<|end|>",
        "<|observation|>",
        "<|start_of_role|>",
        "<|channel|>",
        "<|message|>",
        "<|im_middle|>",
    ),
    *("<s>", "</s>", "<bos>", "<eos>", "<unk>", "<pad>", "<mask>", "<start_of_turn>", "<end_of_turn>"),
    *(
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft_token>",
        "<unused42>",
        "<reserved_106>",
        "<|turn>",
        "<turn|>",
    ),
    *(
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "<seed:bos>",
        "<seed:eos>",
        "<用户>",
    ),
    *("<AI>", "<fim_prefix>", "<sop>", "<eop>", "<eoa>", "<eoh>", "<<SYS>>", "<</SYS>>", "[INST]", "[/INST]"),
    *(
        "[SYSTEM_PROMPT]",
        "[/SYSTEM_PROMPT]",
        "[AVAILABLE_TOOLS]",
        "[TOOL_CALLS]",
        "[TOOL_RESULTS]",
        "[ARGS]",
        "[IMG]",
    ),
    *(
        "[THINK]",
        "[gMASK]",
        "[MASK]",
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[UNUSED_TOKEN_146]",
        "]~b]",
        "]~!b[",
        "[e~[",
    ),
    *("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
    *("<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5ctool\u2581calls\u2581begin\uff5c>"),
)
TAGS = (
    "<recalled>",
    "</recalled>",
    "</memory>",
    "</ lore >",
    "<NOTE>",
    "</time",
    "\uff1c/recalled\uff1e",
    "<\u200b/note>",
)

pieces = st.one_of(
    st.sampled_from([*TOKENS, *TAGS]),
    st.sampled_from(["<", ">", "|", "[", "]", "/", "~", "\n", " ", "\u200b", "\u202e", "\x00", "recalled"]),
    st.text(max_size=8),
)
hostile = st.lists(pieces, max_size=12).map("".join)


@pytest.mark.parametrize("token", TOKENS)
def test_every_known_control_token_is_broken_and_stays_readable(token: str) -> None:
    """A tokenizer finds it nowhere; a reader still does."""
    made = neutral(f"a {token} b")

    assert token not in made
    assert f"a {token} b".replace(" ", "") == made.replace(" ", "")


@given(hostile)
def test_no_text_keeps_a_control_token(text: str) -> None:
    """Nested, doubled or put together from pieces: none is left, also not one that the repair made."""
    for made in (neutral(text), quoted(text), inside(text, "memory")):
        assert [token for token in TOKENS if token in made] == []


@given(hostile)
def test_making_harmless_twice_changes_nothing(text: str) -> None:
    """A message that was repaired when it was stored reads the same when it is quoted again and again."""
    assert neutral(text) == neutral(neutral(text))
    assert quoted(text) == quoted(quoted(text))


@given(hostile)
def test_quoted_text_is_one_line_without_tags(text: str) -> None:
    """It can end no block, and be no line of somebody else."""
    made = quoted(text)

    assert made.splitlines() in ([], [made])
    assert not re.search(r"[<\uff1c\ufe64][^\s\d]", made)
    assert not re.search("[\u200b\u202e\x00]", made)


@given(hostile)
def test_text_inside_a_block_cannot_end_it(text: str) -> None:
    """Neither the end of the block nor a second beginning survives."""
    assert not re.search(r"<\s*/?\s*memory", inside(text, "memory").replace("< ", "\x01"), re.IGNORECASE)


@given(hostile)
def test_text_grows_by_at_most_its_own_length(text: str) -> None:
    """One space for one bracket: what is bounded stays bounded."""
    assert len(quoted(text)) <= 2 * len(text)


@pytest.mark.parametrize(
    "text",
    [
        "I <3 you and 2 < 3 > 1, >_< <- [smiles] [x] a[i] = b[j]",
        "if a < b and c > d: print('<div class=\"x\">')",
        "我爱你 <3 《三体》 [笑]",
    ],
)
def test_ordinary_text_and_code_stay_as_they_are(text: str) -> None:
    """A message is not ours to change unless it has to be."""
    assert text == neutral(text)


@given(st.lists(st.text(alphabet="<|>[]INST/~bs \n", max_size=8), max_size=5))
def test_parts_are_made_neutral_as_one_text(parts: list[str]) -> None:
    """Templates that take content parts put their texts together with nothing between."""
    made = neutral_row(parts)
    assert len(parts) == len(made)
    assert neutral("".join(parts)) == "".join(made)


@pytest.mark.parametrize("at", range(1, 12))
def test_a_token_spread_over_parts_is_none(at: int) -> None:
    """Wherever it is taken apart; a picture between them takes it apart as well."""
    token = "<|im_start|>"
    parts = [{"type": "text", "text": token[:at]}, {"type": "text", "text": token[at:]}]
    said = msgspec.json.decode(message({"role": "user", "content": parts}).json)["content"]
    assert "".join(part["text"] for part in said) == "< |im_start|>"
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    apart = message({"role": "user", "content": [parts[0], picture, parts[1]]})
    assert [parts[0], picture, parts[1]] == msgspec.json.decode(apart.json)["content"]
