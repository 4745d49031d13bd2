"""What issue 4 asks of routing, beside what the product's own choice does in the simulator."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import msgspec

from bench.fleet.contenders import FRIENDO, ORACLE, RIVALS
from bench.fleet.faults import Death, Restart
from bench.fleet.play import Run

_STEPPED = "companions, stepped client"
_NOISE = 1.02
"""Two runs that differ in their dice alone differ by so much."""
_BLIND = tuple(name for name in RIVALS if name != "precise, llm-d")
"""Rivals that no node tells of its cache, as the product is not told today."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One bar, and whether it is met."""

    item: str
    what: str
    bar: str
    value: str
    met: bool


def verdicts(runs: Sequence[Run], deaths: Sequence[Death], restarts: Sequence[Restart]) -> list[Verdict]:
    """Items 1, 2, 3 and 4 as far as they can be simulated; of several seeds, the mean."""
    played: dict[tuple[str, str, int], dict[int, Run]] = {}
    for run in runs:
        played.setdefault((run.workload, run.contender, run.replicas), {})[run.seed] = run
    found = {key: _mean(tuple(by_seed.values())) for key, by_seed in played.items()}
    return [*_warm(found), *_full(found), *_wall(found), *_hot(found), *_faults(deaths, restarts)]


class Mean(msgspec.Struct, frozen=True):
    """Figures of one contender on one workload, averaged over seeds; units are those of `Figures`."""

    precision: float
    uncached: float
    ttft_p90: float
    wall_s: float
    load: float
    stages: tuple[float, ...]


def _mean(runs: Sequence[Run]) -> Mean:
    figures = [run.figures for run in runs]
    return Mean(
        precision=fmean(one.precision or 0.0 for one in figures),
        uncached=fmean(one.uncached for one in figures),
        ttft_p90=fmean(one.ttft_p90 for one in figures),
        wall_s=fmean(one.wall_s for one in figures),
        load=fmean(one.load for one in figures),
        stages=tuple(map(fmean, zip(*(run.stages for run in runs), strict=True))),
    )


Found = Mapping[tuple[str, str, int], Mean]


def _warm(found: Found) -> Iterable[Verdict]:
    for count in sorted({count for _, who, count in found if who == FRIENDO}):
        run = found.get((_STEPPED, FRIENDO, count))
        if run is None:
            continue
        precision = run.precision
        yield _verdict("1", f"warm precision, {count} replicas", ">= 0.98", precision, met=precision >= 0.98)
    own = found[_STEPPED, FRIENDO, 1]
    rivals = {rival: found[_STEPPED, rival, 1] for rival in _BLIND}
    best = min(rivals, key=lambda rival: rivals[rival].uncached)
    least = rivals[best].uncached
    yield _verdict(
        "1", "uncached tokens a turn", f"< {least:,.0f} ({best})", own.uncached, met=own.uncached < least
    )
    best = min(rivals, key=lambda rival: rivals[rival].ttft_p90)
    p90 = rivals[best].ttft_p90
    yield _verdict("1", "TTFT p90", f"< {p90:.2f} ({best})", own.ttft_p90, met=own.ttft_p90 < p90)
    yield _verdict("1", "load, max/mean", "<= 1.3", own.load, met=own.load <= 1.3)


def _full(found: Found) -> Iterable[Verdict]:
    workload = "73 % full, rising"
    own, oracle = found[workload, FRIENDO, 1].stages, found[workload, ORACLE, 1].stages
    rivals = [found[workload, rival, 1].stages for rival in RIVALS]
    for at, p90 in enumerate(own):
        limit = min(1.1 * oracle[at], *(_NOISE * stages[at] for stages in rivals))
        what = f"TTFT p90, 73 % full, stage {at + 1}"
        yield _verdict("2", what, f"<= {limit:.2f} (oracle {oracle[at]:.2f})", p90, met=p90 <= limit)


def _wall(found: Found) -> Iterable[Verdict]:
    workload = "eager sessions"
    own = found[workload, FRIENDO, 1].wall_s
    best = min(
        found[workload, rival, 1].wall_s
        for rival in ("consistent hash", "cache_aware, SMG", "cache_aware, vllm-router")
    )
    yield _verdict("2", "wall time, eager sessions", f"<= {best:,.0f}", own, met=own <= best)


def _hot(found: Found) -> Iterable[Verdict]:
    load = found["hot persona", FRIENDO, 1].load
    yield _verdict("3", "hot persona: load, max/mean", "<= 1.3", load, met=load <= 1.3)


def _faults(deaths: Sequence[Death], restarts: Sequence[Restart]) -> Iterable[Verdict]:
    own = [one for one in deaths if one.contender == FRIENDO]
    turns, tokens = fmean(one.extra for one in own), fmean(one.extra_tokens for one in own)
    yield _verdict("3", "1 of 8 dies: extra turns, max/mean", "<= 1.5", turns, met=turns <= 1.5)
    yield _verdict("3", "1 of 8 dies: extra tokens, max/mean", "<= 1.5", tokens, met=tokens <= 1.5)
    again = next(one for one in restarts if one.contender == FRIENDO)
    oracle = next(one for one in restarts if one.contender == ORACLE)
    limit = 1.25 * oracle.p99
    what = "all restart: p99 of the returned"
    yield _verdict("4", what, f"<= {limit:.1f} (1.25 x oracle)", again.p99, met=again.p99 <= limit)
    cold = again.cold_per_conversation
    yield _verdict("4", "all restart: cold prefills each", "<= 1.1", cold, met=cold <= 1.1)


def _verdict(item: str, what: str, bar: str, value: float, *, met: bool) -> Verdict:
    return Verdict(item=item, what=what, bar=bar, value=f"{value:,.3f}", met=met)
