"""How many turns windows grow to: as configured, or as what is seen asks for (`max_turns: auto`). Pure.

What is seen: pauses between messages, sizes of turns and prompts, how long the nodes keep a prefix. A longer
window is cut less often, but takes more of the caches: they keep fewer conversations, for less long, and more
messages find their KV gone. Such a message's window is cut to L = `min_turns` at no cost (`compaction.free`),
so a window lives until that, or until it has grown by c = H - L + 1 turns. With p the chance of the former at
a message, q = 1 - p, and the sizes S, M, u, d, B of `economics`:

    E = (1 - q^c) / p              turns that a window lives; c where p = 0
    m = sum k q^k / sum q^k        turns beyond L that it shows, by their mean, k from 0 to c - 1
    own = M + u + d (L + m)        tokens of a conversation in the cache: all that nobody shares
    T:  area(T) own = area(T0) own0          the age that a prefix reaches, by what is seen now (`gaps`)
    p = the share of pauses beyond T         so p, m and own depend on each other; a few rounds settle them
    U = q (u + B / 2) + p own(m = 0) + q^c (M + L d) / E       tokens computed per turn
    C = (1 - r0) U + r0 (S + own) + sigma / max(E, lag)        the cost, in tokens computed

and the H of the least C is taken; for p = 0 it is the closed form's. While nothing was missed, the caches
have room, and T is what is assumed. A conversation keeps the H that its window began with until its next cut
(`Conversation.grows_to`).
"""

import math

import msgspec

from history.conversation import Conversation
from history.economics import Facts, summary_price
from history.gaps import Gaps
from history.residency import Retained
from history.rules import DialogueRules
from history.window import WindowRule

_LEAST_SEEN = 64
"""Pauses and turns that must have been seen before anything is found."""
_AGAIN_AFTER = 64
"""Turns between two findings."""
_WEIGHT = 1 / 256
"""Of a new turn in the means."""
_OUTPUT_PRICE = 4.0
"""A token of output by one of uncached input."""
_INSTRUCTION_TOKENS = 150.0
_ROUNDS = 6
_NEVER = 1e-6


class Sizes(msgspec.Struct, frozen=True):
    """Means over turns, in tokens but for the last."""

    prompt: float
    turn: float
    answer: float
    memory: float
    """The memory in the prompt, by estimate."""
    persona: float
    """By estimate."""
    shown: float
    """Turns in the window."""


class Finding(msgspec.Struct, frozen=True):
    """What was found last, and from what: for people to look at."""

    max_turns: int
    retention_s: float
    is_full: bool
    """Whether prefixes were missed; else the caches have room, and the retention is what is assumed."""
    share_cold: float
    """Of messages that will find their KV gone, with these windows."""
    turns_shown: float
    """By prompts, by their mean."""
    cost: float
    """Of a turn, in uncached tokens; at the window that there was before: `cost_before`."""
    cost_before: float
    sizes: Sizes
    pauses: int


class Growth:
    """The rule of every conversation's window, and what it learns from for it. Held by one process."""

    def __init__(self, rules: DialogueRules) -> None:
        self._setting = rules.window
        self._compacts = rules.compaction.enabled
        self._lag = rules.compaction.lag_turns
        self._cached_price = rules.tail.cached_price
        self._gaps = Gaps()
        self._sizes: Sizes | None = None
        self._turns = 0
        self.finding: Finding | None = None
        """None: nothing was found yet, or nothing is to be."""

    @property
    def is_auto(self) -> bool:
        """Whether anything is to be found."""
        return self._setting.is_auto

    def newest(self) -> WindowRule:
        """For a window that begins now."""
        return self._setting.rule(self.finding.max_turns if self.finding is not None else 0)

    def of(self, conversation: Conversation) -> WindowRule:
        """For a conversation's window as it is: it grows to what it began with."""
        if not self.is_auto or not conversation.grows_to:
            return self.newest()
        return self._setting.rule(conversation.grows_to)

    def begun(self, before: Conversation, cut: int) -> int | None:
        """What a window grows to that begins with a commit; None: none begins, or nothing is to be found."""
        if not self.is_auto or (before.grows_to and cut == before.cut):
            return None
        return self.newest().max_turns

    def paused(self, seconds: float) -> None:
        """Somebody spoke again after so long."""
        if self.is_auto:
            self._gaps.add(seconds)

    def is_due(self) -> bool:
        """Whether enough was seen since the last time for something to be found."""
        return self.is_auto and self._turns >= _AGAIN_AFTER and self._gaps.count >= _LEAST_SEEN

    def took(self, seen: Sizes) -> None:
        """A turn of these sizes was stored."""
        if not self.is_auto or seen.prompt <= 0:
            return
        self._turns += 1
        if self._sizes is None:
            self._sizes = seen
            return
        weight = max(_WEIGHT, 1 / (self._turns + 1))
        pairs = zip(msgspec.structs.astuple(self._sizes), msgspec.structs.astuple(seen), strict=True)
        means = (was + (new - was) * weight for was, new in pairs)
        self._sizes = Sizes(*means)

    def find(self, retained: Retained) -> None:
        """Work `max_turns` out anew. Some hundred windows are priced, about a millisecond."""
        if self._sizes is None:
            return
        self._turns = 0
        before = self.newest()
        least, most = self._setting.bounds
        prices = {turns: self._price(turns, retained, self._sizes) for turns in range(least, most + 1)}
        best = min(prices, key=lambda turns: prices[turns].cost)
        self.finding = Finding(
            max_turns=best,
            retention_s=retained.seconds,
            is_full=retained.is_full,
            share_cold=prices[best].share_cold,
            turns_shown=prices[best].shown,
            cost=prices[best].cost,
            cost_before=prices[before.max_turns].cost,
            sizes=self._sizes,
            pauses=self._gaps.count,
        )

    def _price(self, turns: int, retained: Retained, sizes: Sizes) -> "_Price":
        """What a turn costs under windows of so many turns, and what follows from them."""
        facts, least = self._facts(sizes), self._setting.min_turns
        cycle = turns - least + 1
        cold = self._gaps.share_beyond(retained.seconds)
        beyond = _mean_beyond(cycle, cold)
        for _ in range(_ROUNDS if retained.is_full else 0):
            cold = self._share_cold(_own(facts, least + beyond), retained, sizes)
            beyond = _mean_beyond(cycle, cold)
        warm = 1 - cold
        lives = (1 - warm**cycle) / cold if cold > _NEVER else float(cycle)
        own = _own(facts, least + beyond)
        computed = warm * (facts.user_tokens + facts.block / 2) + cold * _own(facts, least)
        computed += warm**cycle * (facts.summary_tokens + least * facts.turn_tokens) / lives
        called = facts.sigma / max(lives, self._lag)
        cost = (1 - facts.r0) * computed + facts.r0 * (facts.persona_tokens + own) + called
        return _Price(cost, cold, least + beyond)

    def _share_cold(self, own: float, retained: Retained, sizes: Sizes) -> float:
        now = max(1.0, sizes.prompt - sizes.persona)
        seconds = self._gaps.time_of(self._gaps.area(retained.seconds) * now / own)
        return 0.0 if math.isinf(seconds) else self._gaps.share_beyond(seconds)

    def _facts(self, sizes: Sizes) -> Facts:
        said = max(1.0, sizes.turn - sizes.answer)
        facts = Facts(
            persona_tokens=sizes.persona,
            summary_tokens=sizes.memory,
            user_tokens=said,
            turn_tokens=max(1.0, sizes.turn),
            answer_tokens=sizes.answer,
            r0=self._cached_price,
        )
        if not self._compacts:
            return facts
        sigma = summary_price(
            facts, self._setting.min_turns, instruction_tokens=_INSTRUCTION_TOKENS, output_price=_OUTPUT_PRICE
        )
        return msgspec.structs.replace(facts, sigma=sigma)


class _Price(msgspec.Struct, frozen=True):
    cost: float
    share_cold: float
    shown: float


def _own(facts: Facts, turns: float) -> float:
    return facts.summary_tokens + facts.user_tokens + facts.turn_tokens * turns


def _mean_beyond(cycle: int, cold: float) -> float:
    """The mean of k = 0 .. cycle - 1, weighted by (1 - cold)^k."""
    if cold <= _NEVER:
        return (cycle - 1) / 2
    warm = 1 - cold
    lost = warm**cycle
    return warm / cold - cycle * lost / (1 - lost)
