"""Nodes that die: one of eight in the middle of the day, and all of them before a thousand come back."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import msgspec

from bench.fleet.card import H100_7B
from bench.fleet.companion import Companions, Crowd
from bench.fleet.contenders import CONTENDERS
from bench.fleet.dialogue import Layout
from bench.fleet.node import SimNode
from bench.fleet.policy import Sight
from bench.fleet.prompt import Request
from bench.fleet.simulation import Simulation
from bench.fleet.tally import Tally, share_of, spread

_DEAD = 3
_DIES_AT = 600.0
_RESTART_AT = 900.0
_BACK_AT = 960.0
_WARM = 0.5


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """One node of eight died, and stayed away."""

    contender: str
    orphans: int
    """Conversations that were at home there and came back."""
    extra: float
    """Orphans' first turns elsewhere, max/mean over the survivors."""
    extra_tokens: float
    """Tokens computed for them then, max/mean."""
    rewarmed: float
    """Share of their second turns that found half of their prompt in the cache."""
    broken: int
    """Answers that had begun."""
    p99_before: float
    p99_after: float
    """Time to the first token in the five minutes before and after."""
    load: float
    """Requests on a survivor in those five minutes after, max/mean."""


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes lost their caches, then everybody came back."""

    contender: str
    returned: int
    p50: float
    p99: float
    longest: float
    cold_per_conversation: float
    """Prefills of mostly uncached prompts, the first included: 1 is the least."""
    placed: float
    """First turns after the restart, max/mean over the nodes."""
    p99_later: float
    """Of the turns that followed within ten minutes."""


def death(contender: str, *, seed: int = 1, quick: bool = False) -> Death:
    """Kill node 3 of 8 while people talk; gateways notice after a second."""
    crowd = Crowd(
        users=300 if quick else 2400,
        gap_median=60.0,
        away_median=300.0,
        ends_at=1200.0,
        measured_from=300.0,
    )
    nodes, simulation, tally = _stage(contender, crowd, seed)
    simulation.at(_DIES_AT, lambda now: simulation.kill(_DEAD, now, noticed_after=1.0))
    simulation.at(_DIES_AT, lambda now: tally.begin(nodes, now))
    simulation.run(until=_DIES_AT + 300.0)
    areas = [node.load_area for node in nodes if node.is_alive]
    simulation.run()
    last: dict[int, int] = {}
    after: dict[int, list[Request]] = {}
    for turn in sorted(tally.turns, key=lambda turn: turn.arrived_at):
        if turn.arrived_at < _DIES_AT:
            last[turn.conversation] = turn.node
        elif last.get(turn.conversation) == _DEAD:
            after.setdefault(turn.conversation, []).append(turn)
    firsts = [turns[0] for turns in after.values()]
    survivors = [node.index for node in nodes if node.is_alive]
    return Death(
        contender=contender,
        orphans=len(firsts),
        extra=_spread_of(firsts, survivors, tokens=False),
        extra_tokens=_spread_of(firsts, survivors, tokens=True),
        rewarmed=_share_warm([turns[1] for turns in after.values() if len(turns) > 1]),
        broken=sum(turn.is_broken for turn in tally.turns),
        p99_before=_p99(tally, _DIES_AT - 300.0, _DIES_AT),
        p99_after=_p99(tally, _DIES_AT, _DIES_AT + 300.0),
        load=spread(areas),
    )


def restart(contender: str, *, seed: int = 1, quick: bool = False) -> Restart:
    """Everybody says something, all nodes restart, everybody comes back within ten seconds."""
    crowd = Crowd(
        users=100 if quick else 1000,
        begins_within=600.0,
        returns_at=_BACK_AT,
        returns_within=10.0,
        ends_at=_BACK_AT + 600.0,
        measured_from=_RESTART_AT,
    )
    nodes, simulation, tally = _stage(contender, crowd, seed)
    for node in nodes:
        simulation.at(_RESTART_AT, partial(simulation.kill, node.index, noticed_after=1.0))
        simulation.at(_BACK_AT - 5.0, partial(simulation.revive, node.index))
    simulation.run()
    turns = sorted(tally.turns, key=lambda turn: turn.arrived_at)
    firsts = [turn for turn in turns if turn.arrived_at <= _BACK_AT + 10.0]
    waits = sorted(turn.first_at - turn.arrived_at for turn in firsts)
    later = sorted(turn.first_at - turn.arrived_at for turn in turns[len(firsts) :])
    cold = sum(turn.cached_tokens < _WARM * turn.prompt.tokens for turn in turns if turn.prompt.tokens > 2000)
    return Restart(
        contender=contender,
        returned=len(firsts),
        p50=share_of(waits, 0.5),
        p99=share_of(waits, 0.99),
        longest=waits[-1],
        cold_per_conversation=cold / len({turn.conversation for turn in turns if turn.prompt.tokens > 2000}),
        placed=_spread_of(firsts, range(len(nodes)), tokens=False),
        p99_later=share_of(later, 0.99),
    )


def _stage(contender: str, crowd: Crowd, seed: int) -> tuple[list[SimNode], Simulation, Tally]:
    nodes = [SimNode(index, H100_7B, kv_tokens=2 * H100_7B.kv_tokens) for index in range(8)]
    policies = CONTENDERS[contender](Sight(nodes=nodes, seed=seed), 1)
    tally = Tally()
    traffic = Companions(crowd, Layout(), seed=seed)
    return nodes, Simulation(nodes, policies, traffic, tally), tally


def _spread_of(turns: Sequence[Request], nodes: Sequence[int], *, tokens: bool) -> float:
    counts: Counter[int] = Counter()
    for turn in turns:
        counts[turn.node] += turn.uncached() if tokens else 1
    return spread(counts[node] for node in nodes)


def _share_warm(turns: Sequence[Request]) -> float:
    return sum(turn.cached_tokens >= _WARM * turn.prompt.tokens for turn in turns) / max(1, len(turns))


def _p99(tally: Tally, since: float, until: float) -> float:
    waits = [
        turn.first_at - turn.arrived_at
        for turn in tally.turns
        if since <= turn.arrived_at < until and turn.first_at >= 0
    ]
    return share_of(sorted(waits), 0.99)
