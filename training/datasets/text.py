"""A text that the tokenizer and the templates carry as it is meant: what is taken out of it, what is parted.

Pure. The rows of these mends are those of LLaMA-Factory's failures that end in silence (docs/datasets.md).
"""

import re

from history.neutral import neutral

_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PLACEHOLDER = re.compile(r"<(?=/?(?:image|video|audio)>)", re.IGNORECASE)
_LATIN_RUN = re.compile(r"[\u00a1-\u00fe]{4,}")
_CHINESE_RUN = re.compile(r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]*")
_REPLACED_TWICE = "\u951f\u65a4\u62f7"
"""What is left of U+FFFD once its bytes were read as GBK."""


def whole(text: str) -> tuple[str, tuple[str, ...]]:
    """The text without what no tokenizer takes, and what was taken out of it."""
    if text.isascii() and text.isprintable():
        return text, ()
    mends = []
    if _SURROGATE.search(text):
        text = _SURROGATE.sub("", text)
        mends.append("surrogate_removed")
    if _UNSEEN.search(text):
        text = _UNSEEN.sub("", text)
        mends.append("control_character_removed")
    return text, tuple(mends)


def parted(text: str) -> tuple[str, tuple[str, ...]]:
    """The text with control tokens and media placeholders broken up by a space, and what was broken up.

    The last thing that is done to a text: nothing that is done before can make a token then.
    """
    if "<" not in text and "[" not in text and "]" not in text:
        return text, ()
    mends = []
    if (safe := neutral(text)) != text:
        mends.append("control_token_parted")
    if _PLACEHOLDER.search(safe):
        safe = _PLACEHOLDER.sub("< ", safe)
        mends.append("placeholder_parted")
    return safe, tuple(mends)


def misread(text: str) -> str:
    """Why a text seems to have been read in a wrong encoding; empty where it does not."""
    if text.isascii():
        return ""
    if _REPLACED_TWICE in text:
        return "UTF-8 was read as GBK and written again; export it anew"
    if "\ufffd" in text:
        return "it has replacement characters (U+FFFD): bytes were lost when it was decoded"
    for run in _LATIN_RUN.findall(text):
        try:
            guess = run.encode("latin-1").decode("gb18030")
        except UnicodeDecodeError:
            continue
        if _CHINESE_RUN.fullmatch(guess):
            return "it seems to be GBK read as Latin-1; convert the file with iconv -f GB18030 -t UTF-8"
    return ""
