"""The findings as rows of text: for the terminal's tables and the page's alike."""

from collections.abc import Iterator

import msgspec

from gateway.advise.question import Findings, Tried
from gateway.advise.reasons import duration
from gateway.advise.words import Said, Words
from history.replay import Outcome
from history.traffic import Spread

DISTANCES_SHOWN = (20, 50, 200)
_BESIDE = 4
"""Windows of the recommended `min_turns` on either side of the recommended one."""


class Row(msgspec.Struct, frozen=True):
    """One window. The cells are in the order of `heads`."""

    name: Said
    cells: tuple[str, ...]
    is_advised: bool
    is_current: bool


def heads(found: Findings, words: Words) -> list[Said]:
    """Above the columns."""
    named = [
        words.say(f"head_{name}")
        for name in ("window", "hit", "uncached", "prompt", "seen", "cost", "formula")
    ]
    named += [words.say("head_recall", distance=distance) for distance in _distances(found)]
    return [*named, words.say("head_ttft")] if _has_prices(found) else named


def rows(found: Findings, words: Words) -> list[Row]:
    """The windows worth looking at: everything, sliding, the one in force, and those around the advice."""
    chosen = found.advice.chosen.rule
    own = sorted(
        (one for one in found.tried if _is_stepped(one) and one.outcome.rule.min_turns == chosen.min_turns),
        key=lambda one: one.outcome.rule.max_turns,
    )
    at = next(index for index, one in enumerate(own) if one.outcome.rule == chosen)
    shown = {id(one) for one in own[max(0, at - _BESIDE) : at + _BESIDE + 1]}
    shown |= {id(min(some, key=lambda one: one.outcome.cost)) for some in _others(found).values()}
    return [
        _row(found, one, words)
        for one in found.tried
        if id(one) in shown or not _is_stepped(one) or one.outcome.rule == found.current
    ]


def facts(found: Findings, words: Words) -> Iterator[tuple[Said, str]]:
    """What the traffic is like."""
    traffic, given = found.traffic, found.circumstances
    yield words.say("fact_dialogues"), f"{traffic.dialogues:,}, {traffic.turns:,}, {traffic.characters:,}"
    length = traffic.dialogue_turns
    yield words.say("fact_length"), f"{length.median:,.0f}, {length.mean:,.1f}, {length.at[0.95]:,.0f}"
    yield words.say("fact_persona"), f"{traffic.persona_tokens:,.0f}"
    for name, one in (("user", traffic.user_tokens), ("answer", traffic.answer_tokens)):
        yield words.say(f"fact_{name}"), _spread(one)
    yield words.say("fact_turn"), f"{traffic.turn_tokens.mean:,.0f}"
    yield words.say("fact_summary"), f"{given.summary_tokens:,}"
    if traffic.gaps is not None:
        gaps = traffic.gaps.at
        yield words.say("fact_gaps"), ", ".join(duration(gaps[share]) for share in (0.1, 0.5, 0.9, 0.95))
    closed = found.advice.closed
    yield words.say("fact_cold"), f"{found.p_cold:.3f}, {_kept(closed.retention_s)}"
    if traffic.active:
        yield words.say("fact_active"), f"{traffic.active:,.1f}, {traffic.active_most:,}"
    cache = f"{given.cache_tokens:,}" if given.cache_tokens else "-"
    yield words.say("fact_block"), f"{given.block}, {given.r0:.3f}, {cache}"
    if (node := found.node) is not None:
        tokens = f", {node.kv_tokens:,} KV tokens" if node.kv_tokens else ""
        yield words.say("fact_node"), f"{node.product} {node.version}{tokens}"


def recall_at(found: Findings, outcome: Outcome, distance: int, *, with_recall: bool) -> float | None:
    """The share of prompts that have a fact said so many turns ago; None where no dialogue is as long."""
    there = dict(zip(found.distances, found.existing, strict=True)).get(distance, 0)
    if not there:
        return None
    in_window = outcome.showing(distance) / there
    if not with_recall:
        return in_window
    back = next((one.share for one in found.recalled if one.distance == distance), 0.0)
    return in_window + (1 - in_window) * back


def window_name(outcome: Outcome, words: Words) -> Said:
    """What a window is called."""
    rule = outcome.rule
    if rule.policy == "all":
        return words.say("series_all")
    if rule.policy == "last_n":
        return words.say("series_last_n", low=rule.max_turns)
    ceiling = f", {rule.max_tokens:,}" if rule.max_tokens else ""
    text = f"{rule.min_turns} → {rule.max_turns}{ceiling}"
    return Said(text, text)


def _row(found: Findings, one: Tried, words: Words) -> Row:
    outcome = one.outcome
    has_recall = outcome.rule.policy == "stepped"
    cells = [
        f"{100 * outcome.hit:.1f}",
        f"{outcome.uncached:,.0f}",
        f"{outcome.mean_prompt:,.0f}",
        f"{outcome.mean_window:.1f}",
        f"{outcome.cost:,.0f}",
        "" if one.predicted_cost is None else f"{one.predicted_cost:,.0f}",
    ]
    for distance in _distances(found):
        share = recall_at(found, outcome, distance, with_recall=has_recall)
        cells.append("-" if share is None else f"{share:.0%}")
    if one.ttft_p50_s is not None and one.ttft_p95_s is not None:
        cells.append(f"{_wait(one.ttft_p50_s)} / {_wait(one.ttft_p95_s)}")
    return Row(
        name=window_name(outcome, words),
        cells=tuple(cells),
        is_advised=outcome.rule == found.advice.chosen.rule,
        is_current=outcome.rule == found.current,
    )


def _others(found: Findings) -> dict[int, list[Tried]]:
    """The stepped windows of other `min_turns`."""
    sorted_out: dict[int, list[Tried]] = {}
    for one in found.tried:
        low = one.outcome.rule.min_turns
        if _is_stepped(one) and low != found.advice.min_turns:
            sorted_out.setdefault(low, []).append(one)
    return sorted_out


def _distances(found: Findings) -> list[int]:
    """Of those shown, the ones that some dialogue is long enough for."""
    there = dict(zip(found.distances, found.existing, strict=True))
    return [distance for distance in DISTANCES_SHOWN if there.get(distance)]


def _has_prices(found: Findings) -> bool:
    return found.node is not None and found.node.prices is not None


def _is_stepped(one: Tried) -> bool:
    return one.outcome.rule.policy == "stepped" and not one.outcome.rule.max_tokens


def _spread(one: Spread) -> str:
    return f"{one.mean:,.0f}, {one.median:,.0f}, {one.at[0.95]:,.0f}"


def _kept(seconds: float) -> str:
    return duration(seconds) if seconds < 1e9 else "∞"


def _wait(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
