"""From samples to the table: medians over the rounds, ratios to the best peer, whether the bars are met."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

STREAM_RATIO_BAR = 2.0
ADDED_FIRST_BYTE_BAR_MS = 3.0
BARRED = "friendo history off"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One contender in one round. CPU is microseconds per reply, less what the contender burns when idle.

    `store_*` is the CPU of the store beside the gateway, in the same unit, not part of the gateway's.
    `unavailable` says why there are no numbers.
    """

    contender: str
    kind: Literal["direct", "peer", "friendo", "reference"]
    json_cpu_us: float | None = None
    stream_cpu_us: float | None = None
    store_json_cpu_us: float | None = None
    store_stream_cpu_us: float | None = None
    idle_core_share: float | None = None
    json_per_s: float | None = None
    first_byte_p50_ms: float | None = None
    first_byte_p99_ms: float | None = None
    direct_p50_ms: float | None = None
    upstream_prompt_bytes: float | None = None
    busiest_node_share: float | None = None
    failures: int = 0
    first_failure: str = ""
    unavailable: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: the medians of a contender's samples."""

    contender: str
    kind: Literal["direct", "peer", "friendo", "reference"]
    rounds: int
    json_cpu_us: float | None
    stream_cpu_us: float | None
    store_json_cpu_us: float | None
    store_stream_cpu_us: float | None
    idle_core_share: float | None
    json_per_s: float | None
    first_byte_p50_ms: float | None
    first_byte_p99_ms: float | None
    added_p50_ms: float | None
    upstream_prompt_bytes: float | None
    busiest_node_share: float | None
    failures: int
    note: str


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile, `share` in 0..1; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cpu_us_per_reply(used_s: float, *, wall_s: float, idle_core_share: float, replies: int) -> float | None:
    """CPU microseconds per reply after taking off what an idle contender would have used meanwhile."""
    if replies == 0:
        return None
    return max(0.0, used_s - idle_core_share * wall_s) / replies * 1e6


def median(values: Iterable[float | None]) -> float | None:
    """The median of what was measured; None if nothing was."""
    measured = [value for value in values if value is not None]
    return statistics.median(measured) if measured else None


def summarise(samples: Sequence[Sample]) -> list[Row]:
    """One row per contender, in the order in which they first appear."""
    names = dict.fromkeys(sample.contender for sample in samples)
    return [_row([sample for sample in samples if sample.contender == name]) for name in names]


def ratio_to_best_peer(
    row: Row, rows: Sequence[Row], field: Literal["json_cpu_us", "stream_cpu_us"]
) -> float | None:
    """The row's CPU over the cheapest peer's; None where either is missing."""
    peers = [getattr(other, field) for other in rows if other.kind == "peer"]
    best = min((value for value in peers if value), default=None)
    own = getattr(row, field)
    return None if best is None or own is None else own / best


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the bars say of the gateway with its memory off, one sentence each; failed replies void them."""
    row = next((row for row in rows if row.contender == BARRED and not row.failures), None)
    ratio = None if row is None else ratio_to_best_peer(row, rows, "stream_cpu_us")
    added = None if row is None else row.added_p50_ms
    return [
        _verdict(f"{BARRED}: CPU per streamed reply, times the best peer's", ratio, STREAM_RATIO_BAR),
        _verdict(f"{BARRED}: ms added to the first byte, p50", added, ADDED_FIRST_BYTE_BAR_MS),
    ]


def render(rows: Sequence[Row]) -> str:
    """The table as text, with the notes and the bars below it."""
    head = ["contender", "CPU µs/JSON", "of best peer", "CPU µs/stream", "of best peer"]
    head += ["first byte p50", "p99", "added p50 ms", "idle core %"]
    body = [
        [
            row.contender,
            _number(row.json_cpu_us, 0),
            _number(ratio_to_best_peer(row, rows, "json_cpu_us"), 2),
            _number(row.stream_cpu_us, 0),
            _number(ratio_to_best_peer(row, rows, "stream_cpu_us"), 2),
            _number(row.first_byte_p50_ms, 2),
            _number(row.first_byte_p99_ms, 1),
            _number(row.added_p50_ms, 2),
            _number(None if row.idle_core_share is None else row.idle_core_share * 100, 2),
        ]
        for row in rows
    ]
    notes = [f"{row.contender}: {row.note}" for row in rows if row.note]
    return "\n".join([*_aligned([head, *body]), "", *notes, *verdicts(rows)])


def _row(samples: Sequence[Sample]) -> Row:
    measured = [sample for sample in samples if not sample.unavailable]
    added = [
        sample.first_byte_p50_ms - sample.direct_p50_ms
        for sample in measured
        if sample.first_byte_p50_ms is not None and sample.direct_p50_ms is not None
    ]
    return Row(
        contender=samples[0].contender,
        kind=samples[0].kind,
        rounds=len(measured),
        json_cpu_us=median(sample.json_cpu_us for sample in measured),
        stream_cpu_us=median(sample.stream_cpu_us for sample in measured),
        store_json_cpu_us=median(sample.store_json_cpu_us for sample in measured),
        store_stream_cpu_us=median(sample.store_stream_cpu_us for sample in measured),
        idle_core_share=median(sample.idle_core_share for sample in measured),
        json_per_s=median(sample.json_per_s for sample in measured),
        first_byte_p50_ms=median(sample.first_byte_p50_ms for sample in measured),
        first_byte_p99_ms=median(sample.first_byte_p99_ms for sample in measured),
        added_p50_ms=median(added),
        upstream_prompt_bytes=median(sample.upstream_prompt_bytes for sample in measured),
        busiest_node_share=median(sample.busiest_node_share for sample in measured),
        failures=sum(sample.failures for sample in measured),
        note=_note(samples),
    )


def _note(samples: Sequence[Sample]) -> str:
    notes = list(dict.fromkeys(f"not available: {one.unavailable}" for one in samples if one.unavailable))
    failures = sum(sample.failures for sample in samples)
    if failures:
        first = next(sample.first_failure for sample in samples if sample.failures)
        notes.append(f"{failures} failed replies, the first: {first}")
    store_json = median(sample.store_json_cpu_us for sample in samples)
    store_stream = median(sample.store_stream_cpu_us for sample in samples)
    if store_json is not None or store_stream is not None:
        notes.append(
            f"its store used {_number(store_json, 0)} µs per JSON request, "
            f"{_number(store_stream, 0)} µs per streamed reply"
        )
    return "; ".join(notes)


def _verdict(what: str, value: float | None, bar: float) -> str:
    if value is None:
        return f"bar not measured: {what} (at most {bar:g})"
    return f"bar {'met' if value <= bar else 'MISSED'}: {what} is {value:.2f} (at most {bar:g})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
