"""The report's charts: which lines of the findings each of them has."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from gateway.advise.chart import Axis, Chart, Series
from gateway.advise.question import Findings, Tried
from gateway.advise.rows import recall_at
from gateway.advise.words import Said, Words
from history.likelihood import Curve
from history.replay import Outcome

_CEILING = 3.0
"""Costs beyond so many times the advised window's are cut off."""
_MOST_CHARACTERS = 3


class Legend(msgspec.Struct, frozen=True):
    """What a line is called."""

    name: Said
    style: int
    is_dashed: bool = False


class Plot(msgspec.Struct, frozen=True):
    """A chart with what stands around it."""

    title: Said
    note: Said
    chart: Chart
    legend: tuple[Legend, ...]


def plots(found: Findings, words: Words) -> Iterator[Plot]:
    """All that the findings are enough for."""
    advised = found.advice.chosen
    yield _over_windows(found, words, "cost", lambda one: one.outcome.cost, _CEILING * advised.cost)
    yield _over_windows(found, words, "uncached", lambda one: one.outcome.uncached, None)
    yield _over_windows(found, words, "hit", lambda one: 100 * one.outcome.hit, None)
    yield _recall(found, words)
    if found.node is not None and found.node.prices is not None:
        yield _ttft(found, words)
    if found.quality:
        yield _quality(found, words)


def _stepped(found: Findings) -> dict[int, list[Tried]]:
    """By `min_turns`, in the order of their `max_turns`."""
    lines: dict[int, list[Tried]] = {}
    for one in found.tried:
        if one.outcome.rule.policy == "stepped" and not one.outcome.rule.max_tokens:
            lines.setdefault(one.outcome.rule.min_turns, []).append(one)
    known = {one.min_turns for one in found.closed}
    return {
        low: sorted(some, key=lambda one: one.outcome.rule.max_turns)
        for low, some in sorted(lines.items())
        if low in known
    }


def _over_windows(
    found: Findings, words: Words, name: str, value: Callable[[Tried], float], ceiling: float | None
) -> Plot:
    """One line for each `min_turns`, over `max_turns`; sliding windows and everything as levels."""
    series, legend, levels = [], [], []
    for style, (low, some) in enumerate(_stepped(found).items()):
        points = tuple((float(one.outcome.rule.max_turns), value(one)) for one in some)
        series.append(Series(points, style))
        legend.append(Legend(words.say("series_low", low=low), style))
        if name == "cost" and low == found.advice.min_turns:
            formula = [(float(one.outcome.rule.max_turns), one.predicted_cost) for one in some]
            dashed = tuple((x, cost) for x, cost in formula if cost is not None)
            series.append(Series(dashed, style, is_dashed=True))
            legend.append(Legend(words.say("series_formula", low=low), style, is_dashed=True))
    for one in found.tried:
        if one.outcome.rule.policy == "all":
            levels.append((value(one), 4))
        if one.outcome.rule.policy == "last_n" and one.outcome.rule.max_turns == found.advice.min_turns:
            levels.append((value(one), 3))
    legend += [
        Legend(words.say("series_last_n", low=found.advice.min_turns), 3, is_dashed=True),
        Legend(words.say("series_all"), 4, is_dashed=True),
    ]
    return Plot(
        title=words.say(f"{name}_chart"),
        note=words.say(f"{name}_note"),
        chart=Chart(
            x=_axis(words, "axis_max_turns", _ends(series)),
            y=Axis("", "", unit=" %" if name == "hit" else ""),
            series=tuple(series),
            mark=float(found.advice.max_turns),
            levels=tuple(levels),
            ceiling=ceiling,
        ),
        legend=tuple(legend),
    )


def _recall(found: Findings, words: Words) -> Plot:
    advised = found.advice.chosen
    sliding = next(
        one.outcome
        for one in found.tried
        if one.outcome.rule.policy == "last_n" and one.outcome.rule.max_turns == found.advice.min_turns
    )
    rule = advised.rule
    lines = (
        (words.say("series_recalled"), advised, True, 0),
        (words.say("series_window", low=rule.min_turns, high=rule.max_turns), advised, False, 1),
        (words.say("series_sliding", low=found.advice.min_turns), sliding, False, 3),
    )
    series = tuple(
        Series(_by_distance(found, outcome, with_recall=recall), style, is_dashed=style == 3)
        for _, outcome, recall, style in lines
    )
    count = sum(one.asked for one in found.recalled)
    own = found.recall_from == "own"
    return Plot(
        title=words.say("recall_chart"),
        note=words.say(
            "recall_note",
            source="your own" if own else "made-up",
            source_zh="你自己的" if own else "生成的",
            count=count,
        ),
        chart=Chart(
            x=msgspec.structs.replace(
                _axis(words, "axis_distance", [float(found.distances[0])]), ticks=_known(series)
            ),
            y=Axis("", "", unit=" %"),
            series=(*series, Series(((float(found.distances[0]), 0.0),), 5)),
        ),
        legend=tuple(Legend(name, style, is_dashed=style == 3) for name, _, _, style in lines),
    )


def _by_distance(found: Findings, outcome: Outcome, *, with_recall: bool) -> tuple[tuple[float, float], ...]:
    shares = [
        (distance, recall_at(found, outcome, distance, with_recall=with_recall))
        for distance in found.distances
    ]
    return tuple((float(distance), 100 * share) for distance, share in shares if share is not None)


def _known(series: Sequence[Series]) -> tuple[float, ...]:
    """Every distance that is told of."""
    return tuple(sorted({x for one in series for x, _ in one.points})) or (0.0, 1.0)


def _ttft(found: Findings, words: Words) -> Plot:
    some = _stepped(found)[found.advice.min_turns]
    medians = [(float(one.outcome.rule.max_turns), 1000 * (one.ttft_p50_s or 0.0)) for one in some]
    tails = [(float(one.outcome.rule.max_turns), 1000 * (one.ttft_p95_s or 0.0)) for one in some]
    series = (Series(tuple(medians), 0), Series(tuple(tails), 1))
    return Plot(
        title=words.say("ttft_chart"),
        note=words.say("ttft_note"),
        chart=Chart(
            x=_axis(words, "axis_max_turns", _ends(series)),
            y=Axis("", ""),
            series=series,
            mark=float(found.advice.max_turns),
        ),
        legend=(Legend(words.say("series_p50"), 0), Legend(words.say("series_p95"), 1)),
    )


def _quality(found: Findings, words: Words) -> Plot:
    shown = found.quality[: 1 + _MOST_CHARACTERS]
    return Plot(
        title=words.say("quality_chart"),
        note=words.say("quality_note", model=found.model),
        chart=Chart(
            x=_axis(words, "axis_n", [float(one.turns) for one in shown[0].points]),
            y=Axis("", "", format=".2f"),
            series=tuple(_curve(one, style, has_band=style == 0) for style, one in enumerate(shown)),
            mark=float(shown[0].knee),
            levels=((-shown[0].tolerance, 4),),
        ),
        legend=(
            *_names(shown, words),
            Legend(words.say("series_tolerance", tolerance=shown[0].tolerance), 4, is_dashed=True),
        ),
    )


def _names(shown: Sequence[Curve], words: Words) -> Iterator[Legend]:
    yield Legend(words.say("series_every"), 0)
    for style, one in enumerate(shown[1:], start=1):
        yield Legend(words.say("series_character", name=one.character), style)


def _curve(curve: Curve, style: int, *, has_band: bool) -> Series:
    return Series(
        tuple((float(one.turns), -one.behind) for one in curve.points),
        style,
        band=tuple((float(one.turns), -one.behind_high, -one.behind_low) for one in curve.points)
        if has_band
        else (),
    )


def _ends(series: Sequence[Series]) -> list[float]:
    return [x for one in series for x, _ in one.points]


def _axis(words: Words, name: str, values: Sequence[float]) -> Axis:
    """An axis whose ticks grow by about the half, between the least and the greatest value."""
    text = words.say(name)
    known = sorted(set(values))
    ticks = [known[0]]
    for value in known[1:]:
        if value >= ticks[-1] * 1.42 and value - ticks[-1] >= 1:
            ticks.append(value)
    if known[-1] > ticks[-1]:
        if len(ticks) > 1 and known[-1] < ticks[-1] * 1.2:
            ticks.pop()
        ticks.append(known[-1])
    return Axis(text.english, text.chinese, ticks=tuple(ticks))
