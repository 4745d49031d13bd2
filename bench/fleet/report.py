"""Runs as text: a table per workload, the rising load as bars, replicas side by side, faults and costs."""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from bench.fleet.faults import Death, Restart
from bench.fleet.play import Run
from bench.fleet.tally import Figures
from bench.fleet.workloads import Workload

_COLUMNS: dict[str, Callable[[Figures], str]] = {
    "hit": lambda f: f"{f.hit:.3f}",
    "uncached": lambda f: f"{f.uncached:,.0f}",
    "background": lambda f: f"{f.background:,.0f}",
    "precision": lambda f: "-" if f.precision is None else f"{f.precision:.3f}",
    "TTFT p50": lambda f: f"{f.ttft_p50:.3f}",
    "p90": lambda f: f"{f.ttft_p90:.3f}",
    "p99": lambda f: f"{f.ttft_p99:.3f}",
    "load": lambda f: f"{f.load:.2f}",
    "placed": lambda f: f"{f.placed:.2f}",
    "wall s": lambda f: f"{f.wall_s:,.0f}",
}
_BAR = 24
_LEAST_S = 0.02


def of_workload(workload: Workload, runs: Sequence[Run]) -> str:
    """Every contender's figures, and p90 by rate where the rate rises."""
    rows = [[run.contender, *(show(run.figures) for show in _COLUMNS.values())] for run in runs]
    parts = [f"## {workload.name}", "", workload.about, "", table(["", *_COLUMNS], rows)]
    if workload.stages:
        head = ["TTFT p90 at requests/s", *(f"{stage.per_s:g}" for stage in workload.stages)]
        staged = [[run.contender, *(f"{p90:.2f}" for p90 in run.stages)] for run in runs]
        parts += ["", table(head, staged), "", bars(runs)]
    return "\n".join(parts)


def bars(runs: Sequence[Run]) -> str:
    """The p90 at the second highest rate, on a logarithmic scale from 20 ms to 5 minutes."""
    place = -2 if len(runs[0].stages) > 2 else -1
    lines = [f"{run.contender:28} {_bar(run.stages[place])} {run.stages[place]:.2f} s" for run in runs]
    return "\n".join(["```", *lines, "```"])


def of_replicas(runs: Sequence[Run], counts: Sequence[int]) -> str:
    """Precision, uncached tokens and p90 by the number of replicas."""
    names = list(dict.fromkeys(run.contender for run in runs))
    found = {(run.contender, run.replicas): run.figures for run in runs}
    rows = []
    for name in names:
        figures = [found[name, count] for count in counts]
        precision = [_COLUMNS["precision"](one) for one in figures]
        uncached = [f"{one.uncached:,.0f}" for one in figures]
        rows.append([name, *precision, *uncached, *(f"{one.ttft_p90:.2f}" for one in figures)])
    head = [f"{what} x{count}" for what in ("precision", "uncached", "p90") for count in counts]
    return "\n".join(["## companions, stepped client, by replicas", "", table(["", *head], rows)])


def of_faults(deaths: Sequence[Death], restarts: Sequence[Restart]) -> str:
    """Both faults."""
    return "\n".join(
        [
            "## 1 of 8 nodes dies",
            "",
            _records(deaths),
            "",
            "## all nodes restart, everybody comes back within 10 s",
            "",
            _records(restarts),
        ]
    )


def of_costs(title: str, records: Sequence[msgspec.Struct]) -> str:
    """Any records with the same fields."""
    return "\n".join([f"## {title}", "", _records(records)])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown that also reads well as it is."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    shown = ["| " + " | ".join(_aligned(line, widths)) + " |" for line in lines]
    return "\n".join([shown[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *shown[1:]])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        line[0].ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
    ]


def _records(records: Sequence[msgspec.Struct]) -> str:
    fields = [field.name for field in msgspec.structs.fields(records[0])]
    rows = [[_shown(getattr(record, name)) for name in fields] for record in records]
    return table([name.replace("_", " ") for name in fields], rows)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bar(seconds: float) -> str:
    decades = max(0, min(_BAR, round(_BAR * math.log10(max(seconds, _LEAST_S) / _LEAST_S) / 4.2)))
    return ("#" * decades).ljust(_BAR)
