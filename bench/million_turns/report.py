"""What was measured, as tables and for machines."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from bench.million_turns.economy import Cost
from bench.million_turns.loading import Loaded
from bench.million_turns.memory_use import MemoryUse
from bench.million_turns.round_trips import Spread, Waits


@dataclass(frozen=True, slots=True)
class Population:
    """Who was loaded. Tokens are per turn, by characters."""

    turns: int
    conversations: int
    longest: int
    over_a_thousand: int
    median: int
    user_tokens: float
    answer_tokens: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one run."""

    seed: int
    fsync: str
    valkey: str
    population: Population
    load: Loaded
    memory: MemoryUse
    waits: Sequence[Waits]
    costs: Sequence[Cost]


def write_json(path: Path, report: Report) -> None:
    """Every number, and what the machine was like."""
    document = asdict(report) | {"cores": os.cpu_count(), "load_average": os.getloadavg()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def tables(report: Report) -> str:
    """Four tables."""
    parts = (_loaded(report), _memory(report), _waits(report.waits), _costs(report.costs))
    return "\n\n".join("\n".join(lines) for lines in parts)


def _loaded(report: Report) -> list[str]:
    load, use, who = report.load, report.memory, report.population
    turns = load.written.turns
    said = (
        f"{turns:,} turns over {who.conversations:,} conversations (median {who.median}, "
        f"{who.over_a_thousand} over 1,000, longest {who.longest:,}), about {who.user_tokens:.0f} + "
        f"{who.answer_tokens:.0f} tokens a turn; Valkey {report.valkey}, {use.allocator}, "
        f"appendfsync {report.fsync}"
    )
    row = (
        f"| {load.seconds:.0f} s | {turns / load.seconds:,.0f} | {load.written.commits:,} | {_mb(use.used)} "
        f"| {use.used / turns:.0f} | {load.written.text_bytes / turns:.0f} | {_mb(use.resident)} "
        f"| {_mb(use.aof)} | {_mb(use.aof_rewritten)} | {use.fork_ms:.0f} ms |"
    )
    head = (
        "| loaded in | turns/s | commits | memory | bytes/turn | text | resident | AOF | rewritten | fork |"
    )
    return [said, "", head, "|---|---|---|---|---|---|---|---|---|---|", row]


def _memory(report: Report) -> list[str]:
    use, turns = report.memory, report.load.written.turns
    lines = ["| part | MB | bytes/turn | bytes/conversation | share |", "|---|---|---|---|---|"]
    for name, size in (*use.parts.items(), ("all", use.used)):
        each = size / report.population.conversations
        lines.append(
            f"| {name} | {size / 1e6:.1f} | {size / turns:.0f} | {each:,.0f} | {size / use.used:.1%} |"
        )
    return lines


def _waits(waits: Sequence[Waits]) -> list[str]:
    lines = [
        "| store | at once | turns | trips/turn | begin p50 / p99 / max ms | commit | both |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in waits:
        spreads = " | ".join(_spread(one) for one in (row.begin, row.commit, row.both))
        lines.append(
            f"| {row.store} | {row.at_once} | {row.turns:,} | {row.trips_per_turn:.2f} | {spreads} |"
        )
    return lines


def _costs(costs: Sequence[Cost]) -> list[str]:
    lines = [
        "| window | turn | turns in it | trips/turn | bytes sent | bytes received | scripts µs | server µs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.form} | {row.length:,} | {row.window:.1f} | {row.round_trips:.2f} | {row.sent:,.0f} "
        f"| {row.received:,.0f} | {row.script_us:.0f} | {row.server_us:.0f} |"
        for row in costs
    ]
    return lines


def _spread(taken: Spread) -> str:
    return f"{taken.p50:.2f} / {taken.p99:.2f} / {taken.max:.1f}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
