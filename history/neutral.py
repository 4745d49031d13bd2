"""Remembered text made harmless: it cannot look like a template's control token or end the block around it.

What users and models said comes back in later prompts as data. Words stay readable; only what a tokenizer
or a delimiter would take for its own is parted by a space. Pure.

Three degrees: `neutral` for a message that stands as a message (code in it stays code), `inside` for text in
a block, `quoted` for a line in a block, where nothing may pass for a tag or for a line of somebody else.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

# What chat templates take for the end of a message or the beginning of another: `<|…|>` (ChatML, Qwen, Llama,
# Phi, GLM, gpt-oss), `<|…>` and `<…|>` (Gemma 4), the same with DeepSeek's full-width bar, names in angles
# (Llama 2, Mistral, Gemma, InternLM, Seed, MiniCPM), capitals in squares (Llama 2, Mistral, GLM, BERT's), and
# MiniMax's tildes.
_IN_ANGLES = (
    "s|bos|eos|unk|pad|mask|sep|cls|eod|sop|eop|eoh|eoa|eom|eot|think|tools?|ai|\u7528\u6237"
    "|tool_(?:call|calls|response|result)|(?:start|end|begin)_of_[a-z_]{1,24}|image_soft_token"
    "|fim_[a-z]{1,12}|repo_?name|file_sep|(?:unused|reserved_|extra_id_|special_)_?[0-9]{1,6}|seed:[a-z_:]{1,24}"
)
_IN_SQUARES = (
    "(?i:INST)|SYSTEM_PROMPT|MODEL_SETTINGS|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS|CONTENT)|ARGS|CALL_ID|THINK"
    "|IMG(?:_BREAK|_END)?|(?:BEGIN_)?AUDIO|TRANSCRIBE|PREFIX|MIDDLE|SUFFIX|[gs]?MASK|CLS|SEP|PAD|UNK|BOS|EOS"
    "|UNUSED_TOKEN_[0-9]{1,6}"
)
_CONTROL = re.compile(
    r"<(?=[|\uff5c][^<>\n]{0,60}>|[^\s<>|\uff5c]{1,60}[|\uff5c]>"
    rf"|(?i:/?(?:{_IN_ANGLES})>|</?SYS>>))"
    rf"|\[(?=/?(?:{_IN_SQUARES})\]|[a-z]~[\]\[])"
    r"|\](?=~!?[a-z]{1,20}[\]\[])"
)
# `<` before anything but a space or a digit: `<3` and `a < b` stay.
_OPENING = re.compile(r"[<\uff1c\ufe64](?=[^\s\d])")
# Control characters, turns of the writing direction, and characters that nobody sees but a tokenizer.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)


def neutral(text: str) -> str:
    """The text with every control token broken up by a space, readable as before."""
    return _CONTROL.sub(r"\g<0> ", text) if _CONTROL.search(text) else text


def neutral_row(texts: Sequence[str]) -> list[str]:
    """Texts that a template may put behind one another with nothing between, made neutral as one."""
    whole = "".join(texts)
    if not _CONTROL.search(whole):
        return list(texts)
    parted, start = [], 0
    for text in texts:
        end = start + len(text)
        cuts = [found.end() for found in _CONTROL.finditer(whole) if start < found.end() <= end]
        edges = [start, *cuts, end]
        parted.append(" ".join(whole[one:other] for one, other in pairwise(edges)))
        start = end
    return parted


def inside(text: str, block: str) -> str:
    """The text as it may stand inside `<block>…</block>`: it can neither end the block nor begin one."""
    tag = re.compile(rf"<(?=\s*/?\s*{re.escape(block)})", re.IGNORECASE)
    return tag.sub("< ", neutral(text)) if block.lower() in text.lower() else neutral(text)


def quoted(text: str) -> str:
    """The text on one line, with no tag of any name in it and nothing that cannot be seen."""
    line = " ".join(_UNSEEN.sub(" ", text).split())
    return neutral(_OPENING.sub(r"\g<0> ", line) if _OPENING.search(line) else line)
