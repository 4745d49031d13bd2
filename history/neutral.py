"""Remembered text made harmless: it cannot look like a template's control token or end the block around it.

What users and models said comes back in later prompts as data. Words stay readable; only the tokens that a
chat template or a delimiter would take for its own are broken up. Pure.
"""

import re

# What chat templates take for the end of a message or the beginning of another: ChatML, Llama, Mistral,
# Gemma, DeepSeek, and the end-of-text marks of older models.
_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<\uff5c[^\uff5c<>\n]{1,40}\uff5c>|</?s>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS)\]"
    r"|<</?SYS>>|<(?:start|end)_of_(?:turn|image)>|<(?:bos|eos|unk|pad)>",
    re.IGNORECASE,
)


def neutral(text: str) -> str:
    """The text with every control token broken up by a space, readable as before."""
    return _CONTROL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def inside(text: str, block: str) -> str:
    """The text as it may stand inside `<block>…</block>`: it can neither end the block nor begin one."""
    tag = re.compile(rf"<(?=\s*/?\s*{re.escape(block)})", re.IGNORECASE)
    return tag.sub("< ", neutral(text)) if block.lower() in text.lower() else neutral(text)
