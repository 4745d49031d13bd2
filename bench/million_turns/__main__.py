"""`python -m bench.million_turns`: fill one Valkey, then take turns in it.

Beside the full store stands a second one with a few of the same conversations in their shortest form that has
the same window: what growth costs is the ratio of the two.
"""

import argparse
import asyncio
import contextlib
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from bench.million_turns import economy, loading, memory_use
from bench.million_turns.loading import Plan, progress
from bench.million_turns.population import Outline, picked, shortest_alike
from bench.million_turns.report import Population, Report, tables, write_json
from bench.million_turns.round_trips import Round, Stopwatch, Waits
from bench.million_turns.talk import Speaker, tokens_said
from bench.valkey_server import Fsync, Server, running
from history.store_rules import MEMORIES_KEPT
from history.window import WindowRule

ROUNDS = 6
AT_ONCE = (1, 16)
TARGETS, FEW = 2_000, 32
OUTPUT = Path(__file__).parents[1] / "results" / "million_turns.json"
_SPOKEN = 2_000


def measure(plan: Plan, *, fsync: Fsync, samples: int) -> Report:
    """Load, look, and take turns. `samples`: turns measured per row of the second table."""
    with running(fsync) as full, contextlib.ExitStack() as stack:
        empty = int(full.info("memory")["used_memory"])
        loaded = loading.load(full.url, plan)
        of = plan.lengths()
        use = memory_use.memory_use(full, (plan.outline(*one) for one in enumerate(of)), empty=empty)
        few = stack.enter_context(running(fsync))
        targets = [plan.outline(number, of[number]) for number in picked(of, TARGETS, plan.seed)]
        waits = measure_waits(full, few, targets, plan, samples=samples)
        full.wait_for_rewrite()
        return Report(
            seed=plan.seed,
            fsync=fsync,
            valkey=str(full.info("server")["valkey_version"]),
            population=population(of, plan),
            load=loaded,
            memory=use,
            waits=waits,
            costs=list(economy.costs(full)),
        )


def measure_waits(
    full: Server, few: Server, targets: Sequence[Outline], plan: Plan, *, samples: int
) -> list[Waits]:
    """Both stores in turns, so that noise meets both; then the full one while it rewrites its file."""
    short = [
        replace(one, length=shortest_alike(one.length, plan.rule, MEMORIES_KEPT)) for one in targets[:FEW]
    ]
    asyncio.run(loading.write_all(few.url, short, plan.rule))
    watches = [
        (Stopwatch(name, at_once), server, chosen)
        for at_once in AT_ONCE
        for name, server, chosen in (("nearly empty", few, short), ("full", full, targets))
    ]
    each = max(samples // ROUNDS, AT_ONCE[-1])
    with progress() as bar:
        for number in bar.track(range(ROUNDS), description="rounds of turns"):
            for watch, server, chosen in watches:
                seed = f"{plan.seed}/{number}/{watch.at_once}"
                watch.run(server.url, Round(chosen, each, watch.at_once, seed, plan.rule))
    rewriting = Stopwatch("full, rewriting its file", AT_ONCE[-1])
    now = Round(targets, samples, rewriting.at_once, f"{plan.seed}/rewriting", plan.rule)
    full.wait_for_rewrite()
    rewriting.run(full.url, replace(now, midway=full.client.bgrewriteaof))
    return [*(watch.waits() for watch, _, _ in watches), rewriting.waits()]


def population(of: Sequence[int], plan: Plan) -> Population:
    """What was loaded, in a few numbers."""
    speakers = [Speaker(f"{plan.seed}/{number}") for number in range(100)]
    said = [one.turn for speaker in speakers for one in islice(speaker.said(), _SPOKEN // 100)]
    tokens = [tokens_said(turn) for turn in said]
    return Population(
        turns=plan.turns,
        conversations=plan.conversations,
        longest=max(of),
        over_a_thousand=sum(length > 1_000 for length in of),
        median=round(statistics.median(of)),
        user_tokens=statistics.mean(user for user, _ in tokens),
        answer_tokens=statistics.mean(answer for _, answer in tokens),
    )


def options() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.million_turns", description=__doc__)
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--conversations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fsync", choices=("always", "everysec"), default="everysec")
    parser.add_argument("--processes", type=int, default=2, help="that load (default: 2)")
    parser.add_argument("--samples", type=int, default=6_000, help="turns timed per row (default: 6000)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="for machines (default: %(default)s)")
    return parser


def main() -> int:
    """Run and print."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that every child is stopped
    asked = options().parse_args()
    plan = Plan(
        turns=asked.turns,
        conversations=asked.conversations,
        seed=asked.seed,
        processes=asked.processes,
        rule=WindowRule(),
    )
    fsync: Fsync = "always" if asked.fsync == "always" else "everysec"
    report = measure(plan, fsync=fsync, samples=asked.samples)
    write_json(asked.output, report)
    print(tables(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
