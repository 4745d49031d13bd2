"""The pictures of docs/answers.md, as SVG files that stand alone. Pure."""

from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any

from gateway.advise.chart import Axis, Chart, Series, svg

_STYLE = """<style>
svg { background: #fff; } [lang="zh"] { display: none; }
text { font: 12px system-ui, sans-serif; fill: #5d6675; } .name { fill: #1d2430; }
.grid { stroke: #d9dde3; } .axis { stroke: #5d6675; } .mark { stroke: #c01f4a; stroke-dasharray: 2 3; }
.marked { fill: #c01f4a; font-weight: 600; } .line { fill: none; stroke-width: 2; }
.level { stroke-dasharray: 6 4; } .s0 { stroke: #0b67c2; } .s1 { stroke: #c2560b; } .s2 { stroke: #1a7f4e; }
.dot { stroke: none; fill: #0b67c2; } .bar { fill: #9aa4b2; } .ours { fill: #0b67c2; }
@media (prefers-color-scheme: dark) {
  svg { background: #14171c; } text { fill: #9aa4b2; } .name { fill: #e6e9ee; } .grid { stroke: #343a43; }
  .bar { fill: #5d6675; } .ours { fill: #6bb1f5; } .s0 { stroke: #6bb1f5; }
}
</style>"""
_ROW, _LEFT, _WIDTH = 26, 280, 640


def over_windows(result: Any, name: str, title: str) -> str:
    """One figure over `max_turns`, with the advised window marked; sliding and all as levels."""
    low = result["advice"]["min_turns"]
    points = sorted(
        (one["rule"]["max_turns"], one[name])
        for one in result["windows"]
        if one["rule"]["policy"] == "stepped"
        and one["rule"]["min_turns"] == low
        and not one["rule"]["max_tokens"]
    )
    levels = [(one[name], 1) for one in result["windows"] if one["rule"]["policy"] == "all"]
    levels += [
        (one[name], 2)
        for one in result["windows"]
        if one["rule"]["policy"] == "last_n" and one["rule"]["max_turns"] == low
    ]
    words = f"max_turns at min_turns {low}; dashed: the whole history (orange), sliding over {low} (green)"
    chart = Chart(
        x=Axis(words, ""),
        y=Axis(title, ""),
        series=(Series(tuple((float(x), float(y)) for x, y in points), 0),),
        mark=float(result["advice"]["max_turns"]),
        levels=tuple(levels),
    )
    return _alone(svg(chart))


def bars(result: Any, title: str) -> str:
    """Tokens computed a turn, by router."""
    played = {name: one["uncached"] for name, one in result["arms"].items() if not isinstance(one, str)}
    return _alone("".join(_bars(played, title)))


def _bars(values: Mapping[str, float], title: str) -> Iterator[str]:
    height, most = _ROW * len(values) + 40, max(values.values())
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">'
    for place, (name, value) in enumerate(values.items()):
        y, width = 8 + place * _ROW, (_WIDTH - _LEFT - 60) * value / most
        kind = "bar ours" if name.startswith("friendo") else "bar"
        yield f'<text class="name" x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_ROW - 8}"/>'
        yield f'<text x="{_LEFT + width + 6:.1f}" y="{y + 14}">{value:,.0f}</text>'
    yield f'<text x="{_LEFT}" y="{height - 10}">{escape(title)}</text></svg>'


def _alone(picture: str) -> str:
    """With the colours that its page would give it."""
    end = picture.index(">") + 1
    return f"{picture[:end]}{_STYLE}{picture[end:]}\n"


_COMPUTED = "prompt tokens computed a turn"

PICTURES: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "vllm": ("vllm", lambda result: bars(result, _COMPUTED)),
    "sglang": ("sglang", lambda result: bars(result, _COMPUTED)),
    "cost": ("windows", lambda result: over_windows(result, "cost_per_turn", "cost of a turn")),
    "computed": ("windows", lambda result: over_windows(result, "uncached_per_turn", _COMPUTED)),
}
"""By the picture's name: of which part's result it is drawn, and how."""
