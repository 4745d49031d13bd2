"""`python -m bench.fleet`: simulate fleets under every policy and print tables; `--quick` for a look.

Results go to bench/results/fleet.json. One process, one core.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.fleet import choice_cost, report
from bench.fleet.contenders import CONTENDERS, FRIENDO, ORACLE
from bench.fleet.faults import Death, Restart, death, restart
from bench.fleet.play import Run, play
from bench.fleet.verdicts import verdicts
from bench.fleet.workloads import Workload, companions, eager, hot, nearly_full, recorded

_RESULTS = Path(__file__).parents[1] / "results" / "fleet.json"
_TRACE = Path("../shared/data/mooncake_conversation_trace.jsonl")
_ALL = tuple(CONTENDERS)
_SEEDS = 4
_REPLICATED = (
    "consistent hash",
    "cache_aware, SMG",
    "approximate, llm-d",
    FRIENDO,
)
_OWN_WINDOW = ("sticky, vllm-router", FRIENDO, ORACLE)
_SLIDING = ("round robin", "consistent hash", "cache_aware, SMG", FRIENDO)
_WITH_IDS = (FRIENDO,)
"""The others have what they need without."""
_FAULTY = (
    "consistent hash",
    "sticky, vllm-router",
    "cache_aware, SMG",
    FRIENDO,
    ORACLE,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and print it."""
    options = _parser().parse_args(arguments)
    began = time.perf_counter()
    runs: list[Run] = []
    deaths: list[Death] = []
    restarts: list[Restart] = []
    for workload, contenders in _programme(options):
        played = [play(workload, name, seed=options.seed) for name in contenders]
        runs += played
        _print(report.of_workload(workload, played))
    if not options.workload and not options.only:
        runs += _replicas(options)
        deaths, restarts = _faults(options)
        runs += _again(options)
        _print(report.of_costs(f"bars, {FRIENDO}", verdicts(runs, deaths, restarts)))
        _costs(options)
    _save(options, runs, deaths, restarts)
    seconds = sum(run.figures.turns / run.requests_per_s for run in runs)
    rate = sum(run.figures.turns for run in runs) / seconds if seconds else 0.0
    _print(f"{time.perf_counter() - began:.0f} s; {rate:,.0f} simulated turns a second of computing")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything small, in seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workload", help="only workloads whose name contains this")
    parser.add_argument("--only", nargs="+", choices=_ALL, help="only these contenders")
    parser.add_argument(
        "--trace", type=Path, default=_TRACE, help="Mooncake's conversation trace, JSON lines"
    )
    parser.add_argument("--output", type=Path, default=_RESULTS)
    return parser


def _programme(options: argparse.Namespace) -> Iterator[tuple[Workload, Sequence[str]]]:
    quick = options.quick
    sliding, stepped, *gateways = companions(quick=quick)
    listed: list[tuple[Workload, Sequence[str]]] = [
        (sliding, _SLIDING),
        (stepped, _ALL),
        *((one, _OWN_WINDOW) for one in gateways),
        *zip(recorded(options.trace, quick=quick), (_ALL, _WITH_IDS), strict=False),
        (nearly_full(quick=quick), _ALL),
        (hot(quick=quick), _ALL),
        (eager(quick=quick), _ALL),
    ]
    if not options.trace.exists():
        _print(f"No trace at {options.trace}: its workloads are left out (--trace names another place).")
    for workload, contenders in listed:
        chosen = [name for name in contenders if not options.only or name in options.only]
        if chosen and (not options.workload or options.workload in workload.name):
            yield workload, chosen


def _replicas(options: argparse.Namespace) -> list[Run]:
    stepped = companions(quick=options.quick)[1]
    counts = (1, 8) if options.quick else (1, 2, 4, 8)
    runs = [
        play(stepped, name, replicas=count, seed=options.seed) for name in _REPLICATED for count in counts
    ]
    _print(report.of_replicas(runs, counts))
    return runs


def _again(options: argparse.Namespace) -> list[Run]:
    """What the bars compare closely, on more seeds: two runs of one policy differ by some percent."""
    workloads = (companions(quick=options.quick)[1], nearly_full(quick=options.quick))
    seeds = range(options.seed + 1, options.seed + (2 if options.quick else _SEEDS))
    return [play(one, name, seed=seed) for seed in seeds for one in workloads for name in _ALL]


def _faults(options: argparse.Namespace) -> tuple[list[Death], list[Restart]]:
    deaths = [death(name, seed=options.seed, quick=options.quick) for name in _FAULTY]
    more = range(options.seed + 1, options.seed + (1 if options.quick else _SEEDS))
    deaths += [death(FRIENDO, seed=seed, quick=options.quick) for seed in more]
    restarts = [restart(name, seed=options.seed, quick=options.quick) for name in _FAULTY]
    _print(report.of_faults(deaths, restarts))
    return deaths, restarts


def _costs(options: argparse.Namespace) -> None:
    rounds = 2 if options.quick else 7
    _print(report.of_costs("what a choice costs, µs", choice_cost.choices(rounds=rounds)))
    _print(report.of_costs("what grows with the dialogue, µs", choice_cost.dialogues(rounds=rounds)))
    placements = 100_000 if options.quick else 1_000_000
    _print(report.of_costs("the ledger", [choice_cost.soak(placements)]))


def _save(
    options: argparse.Namespace, runs: Sequence[Run], deaths: Sequence[Death], restarts: Sequence[Restart]
) -> None:
    saved = {
        "seed": options.seed,
        "quick": options.quick,
        "runs": runs,
        "deaths": deaths,
        "restarts": restarts,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(msgspec.json.format(msgspec.json.encode(saved)))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
