"""One run: a contender with so many replicas in front of a workload's fleet."""

import time
from collections.abc import Sequence

import msgspec

from bench.fleet.contenders import CONTENDERS
from bench.fleet.node import SimNode
from bench.fleet.policy import Sight
from bench.fleet.simulation import Simulation
from bench.fleet.tally import Figures, Tally, share_of
from bench.fleet.workloads import Workload


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    workload: str
    contender: str
    replicas: int
    seed: int
    figures: Figures
    stages: tuple[float, ...]
    """p90 of the time to the first token, per stage."""
    requests_per_s: float
    """Simulated requests per second of computing."""


def play(workload: Workload, contender: str, *, replicas: int = 1, seed: int = 1) -> Run:
    """Play it."""
    nodes = fleet(workload)
    policies = CONTENDERS[contender](Sight(nodes=nodes, seed=seed), replicas)
    tally = Tally()
    simulation = Simulation(nodes, policies, workload.traffic(seed, nodes, policies), tally)
    simulation.at(workload.measured_from, lambda now: tally.begin(nodes, now))
    began = time.perf_counter()
    simulation.run()
    took = time.perf_counter() - began
    return Run(
        workload=workload.name,
        contender=contender,
        replicas=replicas,
        seed=seed,
        figures=tally.figures(nodes),
        stages=_by_stage(workload, tally),
        requests_per_s=tally.left / took,
    )


def fleet(workload: Workload) -> Sequence[SimNode]:
    """Its nodes, new."""
    return [SimNode(index, workload.card, kv_tokens=workload.kv_tokens) for index in range(workload.nodes)]


def _by_stage(workload: Workload, tally: Tally) -> tuple[float, ...]:
    began, found = 0.0, []
    for stage in workload.stages:
        until = began + stage.seconds
        waits = [turn.first_at - turn.arrived_at for turn in tally.turns if began <= turn.arrived_at < until]
        found.append(share_of(sorted(waits), 0.9))
        began = until
    return tuple(found)
