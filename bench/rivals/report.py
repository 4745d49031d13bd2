"""An arm a line, as a table that also reads well as it is."""

from collections.abc import Callable, Mapping

from bench.fleet.report import table
from bench.rivals.tally import Figures

_COLUMNS: dict[str, Callable[[Figures], str]] = {
    "turns": lambda f: f"{f.turns:,}",
    "failed": lambda f: str(f.failed),
    "hit": lambda f: f"{f.hit:.3f}",
    "uncached a turn": lambda f: f"{f.uncached:,.0f}",
    "with the background": lambda f: f"{f.computed:,.0f}",
    "reused, follow-ups": lambda f: f"{f.followups_reused:.1%}",
    "by token ids": lambda f: "" if f.by_token is None else f"{f.by_token:.1%}",
    "reused, all": lambda f: f"{f.reused:.1%}",
    "prompt": lambda f: f"{f.mean_prompt:,.0f}",
    "cuts": lambda f: str(f.cuts),
    "TTFT p50 ms": lambda f: f"{f.ttft_p50_s * 1000:.0f}",
    "p90": lambda f: f"{f.ttft_p90_s * 1000:.0f}",
    "load": lambda f: f"{f.load:.2f}",
    "foretold": lambda f: "" if f.foretold is None else f"{f.foretold:.1%}",
    "at cuts": lambda f: "" if f.foretold_at_cuts is None else f"{f.foretold_at_cuts:.1%}",
}


def of_arms(found: Mapping[str, Figures | str]) -> str:
    """The table; an arm that could not be played has its reason below."""
    rows = [
        [name, *(show(one) for show in _COLUMNS.values())]
        for name, one in found.items()
        if isinstance(one, Figures)
    ]
    lines = [table(["", *_COLUMNS], rows)]
    routes = ((name, one.routes) for name, one in found.items() if isinstance(one, Figures) and one.routes)
    lines += [
        f"{name}: " + ", ".join(f"{route} {n}" for route, n in sorted(of.items())) for name, of in routes
    ]
    lines += [f"{name}: not played: {one}" for name, one in found.items() if isinstance(one, str)]
    return "\n".join(lines)
