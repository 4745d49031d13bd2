"""Dialogues replayed under a window: what each prompt has, what of it is cached, what it costs. Pure.

The window is the product's own (`window.advance`), turn by turn, in the order in which people wrote. Blocks
are looked up in a `PrefixCache` that all conversations share. Cost is in *units* of one uncached input token;
the answers' own tokens cost the same under every window and are left out.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf

import msgspec

from history.prefix_cache import PrefixCache
from history.sketch import Sketch
from history.window import WindowRule, advance


class Circumstances(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the prompts meet: the node's cache, and prices."""

    block: int = 16
    retention_s: float = inf
    """KV that nobody touched for longer is gone."""
    cache_tokens: int = 0
    """What all conversations together can keep; 0: no limit but the retention."""
    summary_tokens: int = 200
    """The summary in front of a window that was cut; 0: turns leave unread. Of stepped windows only."""
    r0: float = 0.1
    output_price: float = 5.0
    """A token of output, in units."""
    instruction_tokens: int = 150
    """What asks for a summary."""

    def __post_init__(self) -> None:
        if self.block < 1 or self.cache_tokens < 0 or self.summary_tokens < 0:
            raise ValueError("block must be at least 1, cache_tokens and summary_tokens not negative")
        if not 0 <= self.r0 <= 1:
            raise ValueError(f"r0 must be between 0 and 1, got {self.r0}")


class Outcome(msgspec.Struct, frozen=True):
    """What became of the traffic under one window. Sums over all turns."""

    rule: WindowRule
    turns: int
    prompt_tokens: int
    cached_tokens: int
    turns_seen: int
    cuts: int
    cold: int
    """Turns of a dialogue under way whose own blocks were all gone."""
    summaries: int
    summary_units: float
    r0: float
    block: int
    windows: dict[int, int]
    """How many prompts had so many turns in their window."""
    uncached_blocks: dict[int, int]
    """How many prompts had so many blocks to be computed (rounded down)."""

    @property
    def hit(self) -> float:
        """The share of prompt tokens that came from the cache."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def uncached(self) -> float:
        """Tokens computed a turn."""
        return (self.prompt_tokens - self.cached_tokens) / max(1, self.turns)

    @property
    def mean_prompt(self) -> float:
        """Tokens of the mean prompt."""
        return self.prompt_tokens / max(1, self.turns)

    @property
    def mean_window(self) -> float:
        """How many turns a prompt shows, on average."""
        return self.turns_seen / max(1, self.turns)

    @property
    def cost(self) -> float:
        """Units a turn, the summaries' included."""
        tokens = self.prompt_tokens - self.cached_tokens + self.r0 * self.cached_tokens
        return (tokens + self.summary_units) / max(1, self.turns)

    def uncached_quantile(self, share: float) -> float:
        """How many tokens had to be computed in at most this share of the turns."""
        below, wanted = 0, share * self.turns
        for blocks in sorted(self.uncached_blocks):
            below += self.uncached_blocks[blocks]
            if below >= wanted:
                return float((blocks + 1) * self.block)
        return 0.0

    def showing(self, distance: int) -> int:
        """How many prompts show the turn that lies so many turns back."""
        return sum(count for window, count in self.windows.items() if window >= distance)


class _Live:
    """One conversation on its way."""

    __slots__ = ("blocks", "cut", "extent", "next", "shown", "sizes", "sketch")

    def __init__(self, sketch: Sketch, extent: int) -> None:
        self.sketch = sketch
        self.next = 0
        self.cut = 0
        self.sizes: list[int] = []
        """Tokens of each turn since the cut."""
        self.shown = 0
        self.extent = extent
        self.blocks = 0
        """Blocks of its own that a node was made to compute."""


def in_order(sketches: Sequence[Sketch]) -> Sequence[int]:
    """Whose turn comes when, as indexes of the dialogues, oldest turn first.

    A dialogue whose times are not known is talked without a pause, before all others.
    """
    owners, times = array("I"), array("d")
    for index, sketch in enumerate(sketches):
        owners.extend([index] * sketch.turn_count)
        times.extend(sketch.at if sketch.has_times else [0.0] * sketch.turn_count)
    start = 0
    for sketch in sketches:  # clocks may go back; turns do not
        latest = 0.0
        for at in range(start, start + sketch.turn_count):
            latest = times[at] = max(latest, times[at])
        start += sketch.turn_count
    order = sorted(range(len(owners)), key=times.__getitem__)
    return array("I", map(owners.__getitem__, order))


def existing(sketches: Sequence[Sketch], distance: int) -> int:
    """How many prompts have a turn so many turns back, in the window or not."""
    return sum(max(0, sketch.turn_count - distance) for sketch in sketches)


def replay(
    sketches: Sequence[Sketch], order: Sequence[int], rule: WindowRule, given: Circumstances
) -> Outcome:
    """All dialogues under one window; `order` as `in_order` gives it."""
    run = Replay(sketches, rule, given)
    for _ in run.steps(order):
        pass
    return run.outcome()


class Replay:
    """One replay under way, so that who runs it can say how far it is, or stop."""

    def __init__(self, sketches: Sequence[Sketch], rule: WindowRule, given: Circumstances) -> None:
        self._given = given
        self._rule = rule
        self._cache = PrefixCache(capacity=given.cache_tokens // given.block, retention_s=given.retention_s)
        self._lives = [_Live(sketch, -index - 1) for index, sketch in enumerate(sketches)]
        self._extents = len(sketches)
        self._has_summary = rule.policy == "stepped" and given.summary_tokens > 0
        self._turns = self._prompt = self._cached = self._seen = self._cuts = self._cold = 0
        self._summaries, self._summary_units = 0, 0.0
        self._windows: Counter[int] = Counter()
        self._uncached: Counter[int] = Counter()

    def steps(self, order: Sequence[int], *, every: int = 10_000) -> Iterator[int]:
        """Replay the turns; says after each `every` of them how many it were, and at the end."""
        done = 0
        for index in order:
            self._turn(self._lives[index])
            done += 1
            if done == every:
                yield done
                done = 0
        yield done

    def outcome(self) -> Outcome:
        """What became of the turns so far."""
        return Outcome(
            rule=self._rule,
            turns=self._turns,
            prompt_tokens=self._prompt,
            cached_tokens=self._cached,
            turns_seen=self._seen,
            cuts=self._cuts,
            cold=self._cold,
            summaries=self._summaries,
            summary_units=self._summary_units,
            r0=self._given.r0,
            block=self._given.block,
            windows=dict(self._windows),
            uncached_blocks=dict(self._uncached),
        )

    def _turn(self, live: _Live) -> None:
        given, sketch, at = self._given, live.sketch, live.next
        now = sketch.at[at]
        self._cold += live.blocks > 0 and not self._cache.held(live.extent, now)
        cut = advance(live.cut, live.sizes, self._rule)
        if cut != live.cut:
            self._cut(live, cut)
        asked, answered = sketch.asked[at], sketch.answered[at]
        head = sketch.persona + given.summary_tokens * (self._has_summary and cut > 0)
        prompt = head + live.shown + asked
        shared = sketch.persona // given.block if sketch.persona_key else 0
        matched = self._cache.match(sketch.persona_key, shared, live.extent, now)
        cached = min(matched, (prompt - 1) // given.block) * given.block if prompt else 0
        # The last token of an answer is never fed back, so its KV does not exist.
        live.blocks = max(0, max(0, prompt + answered - 1) // given.block - shared)
        self._cache.keep(sketch.persona_key, shared, live.extent, live.blocks, now)
        self._count(prompt, cached, len(live.sizes))
        live.sizes.append(asked + answered)
        live.shown += asked + answered
        live.next += 1

    def _cut(self, live: _Live, cut: int) -> None:
        """The window begins later from now on: another chain of blocks, and a summary of what left."""
        given = self._given
        if self._has_summary:
            prompt = live.sketch.persona + given.summary_tokens * (live.cut > 0) + live.shown
            self._summaries += 1
            self._summary_units += given.r0 * prompt + given.instruction_tokens
            self._summary_units += given.output_price * given.summary_tokens
        gone = cut - live.cut
        live.shown -= sum(live.sizes[:gone])
        del live.sizes[:gone]
        live.cut = cut
        if not given.cache_tokens:
            self._cache.drop(live.extent)  # else it lies there until it is evicted
        self._extents += 1
        live.extent = -self._extents
        self._cuts += 1

    def _count(self, prompt: int, cached: int, window: int) -> None:
        self._turns += 1
        self._prompt += prompt
        self._cached += cached
        self._seen += window
        self._windows[window] += 1
        self._uncached[(prompt - cached) // self._given.block] += 1
