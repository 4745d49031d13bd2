"""Whether a node keeps what is expected of it: expected against actual cached tokens, per answer. Pure.

A single miss says nothing; a lasting shortfall means that a node does not hold what it should. It is trusted
by as much as it kept lately, so that nobody goes out of their way for a prefix that is not there, and the
reason is named as far as the numbers tell it.
"""

from collections import deque
from math import gcd
from typing import Literal

import msgspec

Reason = Literal["nothing", "rewritten", "blocks", "evicted", "unclear"]

_KEPT = 32
_LEAST = 8
"""Fewer answers are no lasting shortfall."""
_SHORT = 0.5
_SOUND = 0.8
_YOUNG_S = 60.0
"""Nothing that is worth its name as a cache drops what was used so lately, unless it is flooded."""
_ALIKE_TOKENS = 64


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One answer of which something was expected."""

    expected: int
    cached: int
    age_s: float
    """Since what was expected had been used last; negative: it was in use."""


class Truth:
    """One node's last answers, and what they come to."""

    __slots__ = ("_answers", "reason", "trust")

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque(maxlen=_KEPT)
        self.trust = 1.0
        """By how much to believe what is expected of it, 0..1: one, or the share kept while that is short."""
        self.reason: Reason | None = None
        """Why it is short, if it is."""

    @property
    def kept(self) -> float | None:
        """The share of what was expected lately that was found; None: too little is known."""
        return _share(self._answers) if len(self._answers) >= _LEAST else None

    def told(self, answer: Answer, block_size: int) -> None:
        """An answer came. A node is short that keeps less than half, until it keeps four fifths."""
        self._answers.append(answer)
        kept = self.kept
        limit = _SHORT if self.reason is None else _SOUND
        if kept is None or kept >= limit:
            self.trust, self.reason = 1.0, None
            return
        self.trust, self.reason = kept, reason_of(tuple(self._answers), block_size)

    def forget(self) -> None:
        """The engine was restarted: what it did before says nothing of what it does now."""
        self._answers.clear()
        self.trust, self.reason = 1.0, None


def reason_of(answers: tuple[Answer, ...], block_size: int) -> Reason:
    """What a shortfall looks like.

    `nothing`: not one token is ever found, also of what was there a minute ago. `rewritten`: however long the
    prompt, about the same beginning is found, so what follows is not what was computed. `blocks`: what is
    found comes in multiples of more tokens than a block is believed to have. `evicted`: what is young is
    found.
    """
    young = [one for one in answers if one.age_s < _YOUNG_S]
    if len(young) >= _LEAST // 2 and _share(young) >= _SOUND:
        return "evicted"
    cached = [one.cached for one in young or answers]
    if not any(cached):
        return "nothing" if young else "evicted"
    step, expected = gcd(*cached), [one.expected for one in young or answers]
    if max(cached) - min(cached) < _ALIKE_TOKENS < max(expected) - min(expected):
        return "rewritten"
    if step >= 4 * block_size and len({*cached} - {0}) > 1:
        return "blocks"
    return "unclear"


def _share(answers: "list[Answer] | deque[Answer]") -> float:
    return sum(min(one.cached, one.expected) for one in answers) / sum(one.expected for one in answers)
