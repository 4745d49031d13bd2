"""A line chart as SVG text: axes, lines, points, a mark. No library, no script; colours come from the page.

`s0` to `s5` are the classes of the series, `axis`, `grid`, `mark` and `band` those of the rest.
"""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from math import floor, log10

import msgspec

_WIDTH, _HEIGHT = 640.0, 320.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 72.0, 14.0, 14.0, 40.0


class Series(msgspec.Struct, frozen=True):
    """One line. `style`: which class, 0 to 5; dashed ones are predictions."""

    points: tuple[tuple[float, float], ...]
    style: int
    is_dashed: bool = False
    band: tuple[tuple[float, float, float], ...] = ()
    """x, lower and upper end of an interval."""


class Axis(msgspec.Struct, frozen=True):
    """What is said along an axis. `format` is a format specification for a tick's number."""

    english: str
    chinese: str
    format: str = ",.0f"
    unit: str = ""
    ticks: tuple[float, ...] = ()
    """Where given, x lies at equal distances between these, as on a ruler of its own."""


class Chart(msgspec.Struct, frozen=True):
    """One chart; `mark`: an x that stands out; `levels`: lines across, with their class."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    mark: float | None = None
    levels: tuple[tuple[float, int], ...] = ()
    ceiling: float | None = None
    """Values above are cut off: one bad window would flatten the others."""


def svg(chart: Chart) -> str:
    """The chart; scales to the width of what it stands in."""
    scale = _Scale(chart)
    return "".join(
        (
            f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">',
            *_grid(chart, scale),
            *_mark(chart, scale),
            *_levels(chart, scale),
            *(part for one in chart.series for part in _line(one, scale)),
            "</svg>",
        )
    )


class _Scale:
    """Where a value lies on the picture."""

    def __init__(self, chart: Chart) -> None:
        xs = [x for one in chart.series for x, _ in one.points] or [0.0, 1.0]
        ys = [y for one in chart.series for _, y in one.points] + [y for y, _ in chart.levels]
        ys += [end for one in chart.series for _, low, high in one.band for end in (low, high)]
        top = max(ys, default=1.0)
        self.ceiling = min(top, chart.ceiling) if chart.ceiling is not None else top
        self.y_ticks = _round_ticks(min([*ys, self.ceiling]), self.ceiling)
        self.x_ticks = chart.x.ticks or _round_ticks(min(xs), max(xs))

    def x(self, value: float) -> float:
        """From left to right; between two ticks in proportion."""
        ticks = self.x_ticks
        last = len(ticks) - 1
        if last < 1:
            return _LEFT
        at = next((i for i in range(last) if value <= ticks[i + 1]), last - 1)
        share = (value - ticks[at]) / (ticks[at + 1] - ticks[at])
        return _LEFT + (at + max(0.0, min(1.0, share))) / last * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """From the bottom up."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        share = (min(value, high) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _round_ticks(low: float, high: float) -> tuple[float, ...]:
    """Four to seven round numbers that hold both ends between them."""
    span = high - low
    if span <= 0:
        span = abs(high) or 1.0
        low, high = low - span / 2, high + span / 2
        span = high - low
    size: float = 10 ** floor(log10(span / 4))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if span / (size * factor) <= 5.5)
    first = floor(low / step + 1e-9)
    count = 1
    while (first + count) * step < high - 1e-9 * step:
        count += 1
    return tuple((first + at) * step for at in range(count + 1))


def _grid(chart: Chart, scale: _Scale) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for tick in scale.y_ticks:
        y = scale.y(tick)
        text = f"{tick:{chart.y.format}}{chart.y.unit}"
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
    for tick in scale.x_ticks:
        x = scale.x(tick)
        text = f"{tick:{chart.x.format}}{chart.x.unit}"
        yield f'<line class="axis" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    middle = (_LEFT + right) / 2
    for language, text in (("en", chart.x.english), ("zh", chart.x.chinese)):
        yield (
            f'<text class="label" lang="{language}" x="{middle:.0f}" y="{_HEIGHT - 6:.0f}" '
            f'text-anchor="middle">{escape(text)}</text>'
        )


def _mark(chart: Chart, scale: _Scale) -> Iterator[str]:
    if chart.mark is not None:
        x = scale.x(chart.mark)
        yield f'<line class="mark" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}"/>'
        yield f'<text class="marked" x="{x + 5:.1f}" y="{_TOP + 10}">{chart.mark:g}</text>'


def _levels(chart: Chart, scale: _Scale) -> Iterator[str]:
    for value, style in chart.levels:
        if value <= scale.ceiling:
            y = scale.y(value)
            right = _WIDTH - _RIGHT
            yield f'<line class="level s{style}" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'


def _line(series: Series, scale: _Scale) -> Iterator[str]:
    if series.band:
        ends = [(x, low) for x, low, _ in series.band] + [(x, high) for x, _, high in series.band[::-1]]
        yield f'<polygon class="band s{series.style}" points="{_points(ends, scale)}"/>'
    shown = [(x, y) for x, y in series.points if y <= scale.ceiling]
    kind = "line dashed" if series.is_dashed else "line"
    yield f'<polyline class="{kind} s{series.style}" points="{_points(shown, scale)}"/>'
    if not series.is_dashed:
        yield from _dots(shown, series.style, scale)


def _dots(points: Sequence[tuple[float, float]], style: int, scale: _Scale) -> Iterator[str]:
    for x, y in points:
        yield (
            f'<circle class="dot s{style}" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="2.6">'
            f"<title>{x:g}: {y:,.4g}</title></circle>"
        )


def _points(points: Iterable[tuple[float, float]], scale: _Scale) -> str:
    return " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in points)
