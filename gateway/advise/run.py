"""The use case: listen, price, replay, probe, advise. Everything slow can be interrupted and gone on with."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from gateway.advise.asking import NodeAsked
from gateway.advise.listening import listen
from gateway.advise.needles.generator import DISTANCES
from gateway.advise.needles.probe import built_in, summed
from gateway.advise.quality import quality
from gateway.advise.question import Findings, NodeFacts, Question, Tried
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
    try:
        return await _findings(question, source, state, watcher, node)
    finally:
        state.save()


async def _findings(
    question: Question, source: Source, state: State, watcher: Watcher, node: Node | None
) -> Findings:
    _check(question, source, node)
    is_whole = await listen(source, state, question, watcher)
    traffic = measured(state.sketches, retention_s=question.retention_s)
    gaps = sorted(gap for sketch in state.sketches for gap in sketch.gaps())
    found: list[Curve] = []
    facts: NodeFacts | None = None
    if node is not None:
        if question.quality:
            found = await quality(node.asked, source, state, question, watcher)
        watcher.begins("measuring what a cached token costs on the node", 0)
        facts = await node.facts(round(traffic.answer_tokens.mean))
    given = circumstances(question, traffic, facts)
    low = question.min_turns or (found[0].knee if found else question.window.min_turns)
    bounds = (1, max(question.most_turns, low))
    closed = tuple(
        closed_form(traffic, gaps, given, turns, bounds, p_cold=question.p_cold)
        for turns in sorted({max(1, low // 2), low, min(2 * low, bounds[1])})
    )
    outcomes = await replayed(
        state.sketches, rules_to_try(closed, question.window, bounds), given, state, watcher
    )
    chosen = next(one for one in closed if one.min_turns == low)
    needles = state.needles or list(
        built_in(question.recall, question.window, seed=question.seed, per_distance=_BUILT_IN)
    )
    return Findings(
        source=source.name,
        seed=question.seed,
        is_partial=not is_whole,
        wrong_lines=state.wrong,
        measured_share=state.measured / traffic.turns,
        counts=_counts(source, node),
        traffic=traffic,
        circumstances=given,
        r0_from="given" if question.r0 is not None else "measured" if facts else "assumed",
        p_cold=chosen.facts.p_cold,
        p_cold_from="given" if question.p_cold is not None else "measured" if gaps else "unknown",
        min_turns_from="given" if question.min_turns else "quality" if found else "configured",
        current=question.window,
        node=facts,
        closed=closed,
        tried=tuple(_tried(one, closed, facts) for one in outcomes),
        advice=advised(chosen, outcomes, given, most_summary=question.most_summary),
        distances=DISTANCES,
        existing=tuple(existing(state.sketches, distance) for distance in DISTANCES),
        recalled=tuple(summed(needles)),
        recall_from="own" if state.needles else "built-in",
        quality=tuple(found),
        model=node.asked.model if node else "",
    )


def circumstances(question: Question, traffic: Traffic, node: NodeFacts | None) -> Circumstances:
    """What the prompts will meet: as it was said, else as it was measured, else as it is assumed."""
    r0 = question.r0 if question.r0 is not None else node.prices.r0 if node else _R0
    summary = question.summary_tokens
    if summary is None:
        summary = round(traffic.summary_tokens) or question.most_summary // 2
    return Circumstances(
        block=question.block or (node.block if node else None) or 16,
        retention_s=question.retention_s,
        cache_tokens=question.cache_tokens,
        summary_tokens=summary,
        r0=r0,
        output_price=question.output_price,
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


def _counts(source: Source, node: Node | None) -> str:
    if not source.has_words:
        return "made up"
    return "counted by the node" if node else "estimated"


def _tried(outcome: Outcome, closed: Sequence[Closed], node: NodeFacts | None) -> Tried:
    rule = outcome.rule
    form = next((one for one in closed if one.min_turns == rule.min_turns), None)
    is_stepped = rule.policy == "stepped" and not rule.max_tokens and form is not None
    waits: list[float | None] = [None, None]
    if node is not None:
        prices = node.prices
        waits = [
            prices.overhead_s + prices.uncached_s * outcome.uncached_quantile(share) for share in (0.5, 0.95)
        ]
    return Tried(
        outcome=outcome,
        predicted_cost=form.at(rule.max_turns).cost if is_stepped and form is not None else None,
        ttft_p50_s=waits[0],
        ttft_p95_s=waits[1],
    )
