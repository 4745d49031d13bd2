"""The use case: listen, price, replay, probe, advise. Everything slow can be interrupted and gone on with."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec.structs import replace

from gateway.advise.asking import NodeAsked
from gateway.advise.listening import listen
from gateway.advise.needles.generator import DISTANCES
from gateway.advise.needles.probe import built_in, summed
from gateway.advise.quality import quality
from gateway.advise.question import Assumed, Findings, NodeFacts, Question, Tried
from gateway.advise.replaying import replayed, rules_to_try
from gateway.advise.source import Source
from gateway.advise.state import State
from gateway.advise.watcher import Watcher
from gateway.errors import BadOption
from history.advice import Closed, advised, closed_form
from history.likelihood import Curve
from history.replay import Circumstances, Outcome, existing
from history.traffic import Traffic, measured

_R0 = 0.1
"""Where none was measured: the ratio of most price lists, and of an H100 with an 8B model."""


_BUILT_IN = 20
"""Needles for each distance and language, where there are no dialogues with words."""


class Node(msgspec.Struct, frozen=True):
    """The node that was named."""

    asked: NodeAsked
    facts: Callable[[int], Awaitable[NodeFacts]]
    """What it is, and its prices for answers of so many tokens."""


async def findings(
    question: Question, source: Source, state: State, watcher: Watcher, node: Node | None
) -> Findings:
    """All of it. Whatever ends it, what was done is in the state. Raises `BadOption`, `ValueError`."""
    _check(question, source, node)
    try:
        return await _Run(question, source, state, watcher, node).findings()
    finally:
        state.save()


class _Run:
    """One run, step by step."""

    def __init__(
        self, question: Question, source: Source, state: State, watcher: Watcher, node: Node | None
    ) -> None:
        self._question = question
        self._source = source
        self._state = state
        self._watcher = watcher
        self._node = node

    async def findings(self) -> Findings:
        question, state = self._question, self._state
        is_whole = await listen(self._source, state, question, self._watcher)
        traffic = measured(state.sketches, retention_s=question.assumed.retention_s)
        curves = await self._curves()
        facts = await self._facts(traffic)
        given = circumstances(question, traffic, facts)
        low = question.min_turns or (curves[0].knee if curves else question.window.min_turns)
        bounds = (1, max(question.assumed.most_turns, low))
        closed = self._closed(traffic, given, low, bounds)
        rules = rules_to_try(closed, question.window, bounds)
        outcomes = await replayed(state.sketches, rules, given, state, self._watcher)
        chosen = next(one for one in closed if one.min_turns == low)
        found = Findings(
            source=self._source.name,
            seed=question.seed,
            traffic=traffic,
            circumstances=given,
            current=question.window,
            node=facts,
            closed=closed,
            tried=tuple(_tried(one, closed, facts) for one in outcomes),
            advice=advised(chosen, outcomes, given, most_summary=question.most_summary),
            distances=DISTANCES,
            existing=tuple(existing(state.sketches, distance) for distance in DISTANCES),
            quality=tuple(curves),
            model=self._node.asked.model if self._node else "",
            is_partial=not is_whole,
        )
        return self._with_origins(self._with_needles(found))

    async def _curves(self) -> list[Curve]:
        if not self._question.quality or self._node is None:
            return []
        return await quality(self._node.asked, self._source, self._state, self._question, self._watcher)

    async def _facts(self, traffic: Traffic) -> NodeFacts | None:
        if self._node is None:
            return None
        self._watcher.begins("measuring what a cached token costs on the node", 0)
        return await self._node.facts(round(traffic.answer_tokens.mean))

    def _closed(
        self, traffic: Traffic, given: Circumstances, low: int, bounds: tuple[int, int]
    ) -> tuple[Closed, ...]:
        """The formula for `low`, its half and its double."""
        gaps = sorted(gap for sketch in self._state.sketches for gap in sketch.gaps())
        lows = sorted({max(1, low // 2), low, min(2 * low, bounds[1])})
        return tuple(
            closed_form(traffic, gaps, given, turns, bounds, p_cold=self._question.assumed.p_cold)
            for turns in lows
        )

    def _with_needles(self, found: Findings) -> Findings:
        question, own = self._question, self._state.needles
        needles = own or built_in(
            question.recall, question.window, seed=question.seed, per_distance=_BUILT_IN
        )
        return replace(found, recalled=tuple(summed(needles)), recall_from="own" if own else "built-in")

    def _with_origins(self, found: Findings) -> Findings:
        """Whence the figures are."""
        question, known = self._question, self._question.assumed
        given_low = "given" if question.min_turns else "quality" if found.quality else "configured"
        has_gaps = found.traffic.gaps is not None
        return replace(
            found,
            wrong_lines=self._state.wrong,
            measured_share=self._state.measured / found.traffic.turns,
            counts=_counts(self._source, self._node),
            r0_from=_r0_from(found, known),
            p_cold=found.advice.closed.facts.p_cold,
            p_cold_from="given" if known.p_cold is not None else "measured" if has_gaps else "unknown",
            min_turns_from=given_low,
        )


def circumstances(question: Question, traffic: Traffic, node: NodeFacts | None) -> Circumstances:
    """What the prompts will meet: as it was said, else as it was measured, else as it is assumed."""
    prices = node.prices if node else None
    r0 = question.assumed.r0 if question.assumed.r0 is not None else prices.r0 if prices else _R0
    summary = question.assumed.summary_tokens
    if summary is None:
        summary = round(traffic.summary_tokens) or question.most_summary // 2
    return Circumstances(
        block=question.assumed.block or (node.block if node else None) or 16,
        retention_s=question.assumed.retention_s,
        cache_tokens=question.assumed.cache_tokens,
        summary_tokens=summary,
        r0=r0,
        output_price=question.assumed.output_price,
    )


def _check(question: Question, source: Source, node: Node | None) -> None:
    if not question.quality:
        return
    if node is None:
        raise BadOption("--quality asks a model: name a node with --node vllm=URL and its --model")
    if not source.has_words:
        raise BadOption(
            "--quality needs dialogues with words, and --generate makes only lengths: name a --file"
        )


def _r0_from(found: Findings, known: Assumed) -> str:
    if known.r0 is not None:
        return "given"
    return "measured" if found.node is not None and found.node.prices is not None else "assumed"


def _counts(source: Source, node: Node | None) -> str:
    if not source.has_words:
        return "made up"
    return "counted by the node" if node else "estimated"


def _tried(outcome: Outcome, closed: Sequence[Closed], node: NodeFacts | None) -> Tried:
    rule = outcome.rule
    form = next((one for one in closed if one.min_turns == rule.min_turns), None)
    is_stepped = rule.policy == "stepped" and not rule.max_tokens and form is not None
    waits: list[float | None] = [None, None]
    if node is not None and (prices := node.prices) is not None:
        waits = [
            prices.overhead_s + prices.uncached_s * outcome.uncached_quantile(share) for share in (0.5, 0.95)
        ]
    return Tried(
        outcome=outcome,
        predicted_cost=form.at(rule.max_turns).cost if is_stepped and form is not None else None,
        ttft_p50_s=waits[0],
        ttft_p95_s=waits[1],
    )
