"""How many tokens a user's words have, from what an engine counted of the words before. Pure.

An engine counts prompts, not messages. But a prompt that continues the one before has more than that and its
answer only what the user said and the template's marks around it:

    P(k) - P(k-1) - C(k-1)  =  marks + rate * bytes(k)

So the rate of this dialogue, in its language, comes out of the turns that are in the window anyway: the
median over them: a turn with a tail behind its message looks denser, and the one after it thinner.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median

from history.conversation import Turn

OPENING = 4
"""Tokens of a template's marks before a user's words, the end of the message before included; in ChatML,
Llama 3 and Mistral they differ by one or two."""
CLOSING = 5
"""And of those behind them, up to where the answer begins."""
_USUAL = 0.25
"""Tokens a byte, where nothing tells."""
_DENSER = 1.2
"""A tail has dates, quotation marks and brackets: on tails of recalled English turns it was 1.17 to 1.23."""
_WRAPPED = len(b'{"role":"user","content":""}')
"""Bytes of a stored message that are no words."""


def words_bytes(message: bytes) -> int:
    """Bytes of a stored message's words, nearly: what JSON escapes is counted as it stands."""
    return max(0, len(message) - _WRAPPED)


def spoken_tokens(turns: Sequence[Turn], message: bytes) -> int | None:
    """The tokens that a prompt has from the end of the answer before to the end of this message's words.

    None where no two turns follow one another in the same window.
    """
    rates = list(_rates(turns))
    return OPENING + round(median(rates) * words_bytes(message)) if rates else None


def tail_tokens(turns: Sequence[Turn], size: int) -> int:
    """Those of a tail of so many bytes, as JSON."""
    rate = median(rates) if (rates := list(_rates(turns))) else _USUAL
    return round(_DENSER * rate * size)


def _rates(turns: Sequence[Turn]) -> Iterator[float]:
    for before, turn in pairwise(turns):
        if not before.reply.prompt_tokens or len(turn.messages) != 2:
            continue
        added = turn.reply.prompt_tokens - before.reply.prompt_tokens - before.reply.completion_tokens
        size = words_bytes(turn.messages[0])
        if size and added > OPENING + CLOSING:
            yield (added - OPENING - CLOSING) / size
