"""How many tokens a part of a prompt has that no engine counts by itself: words, or a tail behind them. Pure.

An engine counts whole prompts. A prompt is messages of known bytes, each with a few tokens of the template
around its words, so that what is left tells the rate of this dialogue, in its language:

    rate = (P - marks * messages) / bytes of all words
"""

from collections.abc import Sequence

OPENING = 4
"""Tokens of a template's marks before a user's words, the end of the message before included; in ChatML,
Llama 3 and Mistral they differ by one or two."""
CLOSING = 5
"""And of those behind them, up to where the answer begins."""
_MARKS = (OPENING + CLOSING) / 2
"""Of each message."""
_WRAPPED = len(b'{"role":"user","content":""}')
"""Bytes of a stored message that are no words."""
_DENSER = 1.15
"""A tail has dates, quotation marks and brackets: on tails of recalled English turns it was 1.17 to 1.23 of
plain words, and some of the prompt is tails."""


def spoken_tokens(prompt_tokens: int, parts: Sequence[bytes], message: bytes) -> int:
    """Those that a prompt has from the end of the answer before to the end of this message's words."""
    return OPENING + round(_rate(prompt_tokens, parts) * _words(message))


def tail_tokens(prompt_tokens: int, parts: Sequence[bytes], size: int) -> int:
    """Those of a tail of so many bytes, as JSON."""
    return round(_DENSER * _rate(prompt_tokens, parts) * size)


def _rate(prompt_tokens: int, parts: Sequence[bytes]) -> float:
    """Tokens a byte of words."""
    return max(0.0, prompt_tokens - _MARKS * len(parts)) / max(1, sum(map(_words, parts)))


def _words(message: bytes) -> int:
    """Bytes of a stored message's words, nearly: what JSON escapes is counted as it stands."""
    return max(0, len(message) - _WRAPPED)
