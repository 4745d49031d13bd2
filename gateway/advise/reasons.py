"""Why this window, and what limits the figures: which texts are said, and with what figures."""

from collections.abc import Iterator

from gateway.advise.question import Findings
from gateway.advise.words import Said, Words
from history.advice import SUMMARY_SHARE, TOLERANCE
from history.replay import Outcome

_LONG_PAUSES = 0.25
_SHORT_PAUSES = 0.02
_GUARD = 1.2
_NOISY = 3.0


def reasons(found: Findings, words: Words) -> list[Said]:
    """In the order in which a reader needs them."""
    return [
        *_least(found, words),
        *_balance(found, words),
        *_pauses(found, words),
        _replay(found, words),
        *_gains(found, words),
        *_ceiling(found, words),
        words.say("summary", size=found.advice.summary_tokens, share=100 * SUMMARY_SHARE),
    ]


def caveats(found: Findings, words: Words) -> list[Said]:
    """What to keep in mind of these figures."""
    return [*_sources(found, words), words.say("replay_limits"), words.say("units")]


def duration(seconds: float) -> str:
    """A time as people say it."""
    for size, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _least(found: Findings, words: Words) -> Iterator[Said]:
    low = found.advice.min_turns
    if found.min_turns_from != "quality":
        yield words.say(f"min_turns_{found.min_turns_from}", low=low)
        return
    curve = found.quality[0]
    yield words.say(
        "quality",
        low=low,
        knee=curve.knee,
        tolerance=curve.tolerance,
        replies=curve.replies,
        dialogues=curve.dialogues,
        knee_low=curve.knee_low,
        knee_high=curve.knee_high,
    )
    if curve.is_at_the_end:
        yield words.say("quality_at_the_end")


def _balance(found: Findings, words: Words) -> Iterator[Said]:
    closed = found.advice.closed
    facts, low = closed.facts, closed.min_turns
    yield words.say(
        "balance",
        formula=closed.max_turns,
        once=low * facts.turn_tokens + facts.summary_tokens,
        low=low,
        turn=facts.turn_tokens,
        summary=facts.summary_tokens,
        sigma=facts.sigma,
        r=closed.r,
        step=closed.best_step,
    )


def _pauses(found: Findings, words: Words) -> Iterator[Said]:
    gaps, closed = found.traffic.gaps, found.advice.closed
    share = closed.facts.p_cold
    if found.p_cold_from == "given":
        yield words.say("p_cold_given", share=share, r0=found.circumstances.r0, r=closed.r)
        return
    if gaps is None:
        return
    kind = "long" if share >= _LONG_PAUSES else "short" if share <= _SHORT_PAUSES else "some"
    yield words.say(f"{kind}_pauses")
    yield words.say(
        "pauses",
        median=duration(gaps.median),
        share=100 * share,
        kept=duration(closed.retention_s),
        r0=found.circumstances.r0,
        r=closed.r,
    )


def _replay(found: Findings, words: Words) -> Said:
    advice = found.advice
    return words.say(
        f"by_{advice.by}",
        turns=advice.best.turns,
        formula=advice.closed.max_turns,
        excess=100 * advice.excess,
        best=advice.best.rule.max_turns,
        tolerance=100 * TOLERANCE,
    )


def _gains(found: Findings, words: Words) -> Iterator[Said]:
    own = found.advice.chosen.cost
    for outcome in (one.outcome for one in found.tried):
        name = _rival(found, outcome)
        if name and outcome.cost:
            saved = 100 * (1 - own / outcome.cost)
            yield words.say(
                f"rival_{name}",
                policy=outcome.rule.policy,
                min_turns=outcome.rule.min_turns,
                max_turns=outcome.rule.max_turns,
                cost=outcome.cost,
                own=own,
                saved=abs(saved),
                less="less" if saved >= 0 else "more",
                less_zh="节省" if saved >= 0 else "多出",
            )


def _ceiling(found: Findings, words: Words) -> Iterator[Said]:
    """The token ceiling in force, where it would cut before the advised window does."""
    high, ceiling = found.advice.max_turns, found.current.max_tokens
    tokens = high * found.traffic.turn_tokens.mean
    wanted = wanted_ceiling(found)
    if 0 < ceiling < wanted:
        yield words.say("ceiling", high=high, tokens=tokens, ceiling=ceiling, wanted=wanted)


def wanted_ceiling(found: Findings) -> int:
    """A token ceiling that is a guard and not a window: a fifth more than the window takes."""
    tokens = _GUARD * found.advice.max_turns * found.traffic.turn_tokens.mean
    return int(-(-tokens // 1000)) * 1000


def _rival(found: Findings, outcome: Outcome) -> str:
    """What is compared with: the window in force, the sliding one that shows as much, everything."""
    rule = outcome.rule
    if rule == found.current:
        return "current" if rule != found.advice.chosen.rule else ""
    if rule.policy == "last_n":
        return "last_n" if rule.max_turns == found.advice.min_turns else ""
    return "all" if rule.policy == "all" else ""


def _sources(found: Findings, words: Words) -> Iterator[Said]:
    left = 100 * (1 - found.measured_share)
    if left > 0:
        kind = found.counts.replace("made up", "made_up")
        yield words.say(f"all {kind}" if left == 100 and kind != "made_up" else kind, share=left)
    yield _price(found, words)
    if found.node is not None and found.node.unpriced:
        yield words.say("unpriced", why=found.node.unpriced)
    prices = found.node.prices if found.node is not None else None
    if prices is not None and prices.was_cached is False:
        yield words.say("not_cached")
    if prices is not None and prices.r0_range[1] > _NOISY * prices.r0_range[0]:
        yield words.say("noisy")
    if found.p_cold_from == "unknown":
        yield words.say("times_unknown")
    if found.is_partial:
        yield words.say("partial")
    if found.wrong_lines:
        yield words.say("wrong_lines", count=found.wrong_lines)


def _price(found: Findings, words: Words) -> Said:
    prices = found.node.prices if found.node is not None else None
    if found.r0_from != "measured" or prices is None:
        return words.say(f"r0_{found.r0_from}", r0=found.circumstances.r0)
    return words.say(
        "r0_measured",
        r0=prices.r0,
        low=prices.r0_range[0],
        high=prices.r0_range[1],
        requests=prices.requests,
        cached_us=1e6 * prices.cached_s,
        uncached_us=1e6 * prices.uncached_s,
        answer=prices.answer_tokens,
        rate=prices.prefill_rate,
    )
