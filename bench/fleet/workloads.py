"""The situations that policies are put into: a fleet, a traffic, and from when on it counts.

Sizes are chosen so that everything together takes minutes in pure Python; `quick` shrinks them to seconds,
for a look at the tables, not at the numbers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.fleet.card import A10G_7B, H100_7B, Card
from bench.fleet.companion import Companions, Crowd
from bench.fleet.dialogue import Layout
from bench.fleet.keeper import MakeKeeper, knows_nothing, learning
from bench.fleet.node import SimNode
from bench.fleet.policy import Policy
from bench.fleet.shared_prompt import Questions, SharedPrompts, Stage
from bench.fleet.simulation import Traffic
from bench.fleet.trace import BLOCK, Trace, read
from history.compaction import CompactionRule
from history.window import WindowRule

MakeTraffic = Callable[[int, Sequence[SimNode], Sequence[Policy]], Traffic]
"""Of a seed, and of the nodes and routers: a gateway that remembers dialogues knows something of these."""


class Workload(msgspec.Struct, frozen=True):
    """One situation."""

    name: str
    about: str
    card: Card
    kv_tokens: int
    traffic: MakeTraffic
    nodes: int = 8
    measured_from: float = 0.0
    stages: tuple[Stage, ...] = ()
    """Where the rate rises: what is reported apart."""


def companions(*, quick: bool) -> list[Workload]:
    """Companion chats on small cards whose caches hold half of what is talked about, under four windows."""
    crowd = Crowd(users=900, ends_at=3 * 3600.0)
    if quick:
        crowd = Crowd(users=200, ends_at=2400.0, measured_from=900.0)
    kv_tokens = crowd.working_set(Layout()) // 2 // 8
    layouts = {
        "companions, sliding client": Layout(mode="sliding"),
        "companions, stepped client": Layout(mode="stepped"),
        "companions, gateway": Layout(mode="gateway"),
    }
    gateway = layouts["companions, gateway"]
    late = msgspec.structs.replace(gateway, compaction=CompactionRule(lag_turns=0))
    keepers = {
        "companions, gateway": learning(gateway, is_auto=False),
        "companions, gateway, memory never late": learning(late, is_auto=False),
        "companions, gateway, auto": learning(gateway, is_auto=True),
        "companions, gateway, auto, KV events": learning(gateway, is_auto=True, sees=True),
    }
    layouts |= {name: late if "late" in name else gateway for name in keepers}
    return [
        Workload(
            name=name,
            about=f"8 x {A10G_7B.name}, {crowd.users} users; {kv_tokens:,} KV tokens a node: half the need",
            card=A10G_7B,
            kv_tokens=kv_tokens,
            traffic=_crowd(crowd, layout, keepers.get(name, knows_nothing)),
            measured_from=crowd.measured_from,
        )
        for name, layout in layouts.items()
    ]


def recorded(path: Path, *, quick: bool) -> list[Workload]:
    """The recorded hour, as stateless requests and with session ids; nothing where the file is not."""
    if not path.exists():
        return []
    lines = read(path, limit=1500 if quick else 0)
    from_s = 120.0 if quick else 600.0
    traces = {
        kind: Trace(lines, with_conversations=kind == "with ids", measured_from=from_s)
        for kind in ("stateless", "with ids")
    }

    def of(kind: str) -> MakeTraffic:
        return lambda _seed, _nodes, _policies: traces[kind]

    return [
        Workload(
            name=f"trace, {kind}",
            about=f"4 x {H100_7B.name}, {len(lines):,} requests of Mooncake's conversation trace",
            card=msgspec.structs.replace(H100_7B, block=BLOCK),
            kv_tokens=H100_7B.kv_tokens,
            nodes=4,
            traffic=of(kind),
            measured_from=from_s,
        )
        for kind in traces
    ]


def nearly_full(*, quick: bool) -> Workload:
    """System prompts of 6,000 tokens; all prompts together fill 73 % of the fleet's KV; the rate rises."""
    rates = (20.0, 40.0) if quick else (10.0, 20.0, 30.0, 35.0, 40.0, 45.0, 50.0)
    share = 0.25 if quick else 1.0
    kv_tokens = int(H100_7B.kv_tokens * share)
    stages = tuple(Stage(per_s=rate * share, seconds=60.0) for rate in rates)
    questions = Questions(groups=int(0.73 * 8 * kv_tokens / 12_000), stages=stages)
    return Workload(
        name="73 % full, rising",
        about=f"8 x {H100_7B.name}, {questions.groups} system prompts x {questions.per_group} questions",
        card=H100_7B,
        kv_tokens=kv_tokens,
        traffic=lambda seed, _nodes, _policies: SharedPrompts(questions, seed=seed),
        stages=stages,
    )


def hot(*, quick: bool) -> Workload:
    """One persona of 3,000 tokens for everybody, short dialogues, always new ones."""
    crowd = Crowd(
        users=500 if quick else 4000,
        personas=1,
        gap_median=20.0,
        session_median=6.0,
        session_sigma=0.5,
        away_median=60.0,
        dialogue_turns=8,
        ends_at=90.0 if quick else 220.0,
        measured_from=30.0 if quick else 100.0,
    )
    return Workload(
        name="hot persona",
        about=f"8 x {H100_7B.name}, {crowd.users} users of one persona of 3,000 tokens",
        card=H100_7B,
        kv_tokens=H100_7B.kv_tokens,
        traffic=_crowd(crowd, Layout(persona_tokens=3000)),
        measured_from=crowd.measured_from,
    )


def eager(*, quick: bool) -> Workload:
    """Long sessions that ask again within a second, all at once: how long until all are done."""
    crowd = Crowd(
        users=80 if quick else 640,
        personas=1,
        user_median=500.0,
        user_sigma=1.0,
        answer_median=200.0,
        gap_median=1.0,
        session_median=20.0,
        session_sigma=0.8,
        begins_within=20.0,
        is_new=True,
        sessions=1,
        ends_at=float("inf"),
        measured_from=0.0,
    )
    return Workload(
        name="eager sessions",
        about=f"8 x {H100_7B.name}, {crowd.users} sessions replayed, whole history",
        card=H100_7B,
        kv_tokens=H100_7B.kv_tokens if not quick else H100_7B.kv_tokens // 4,
        traffic=_crowd(crowd, Layout(persona_tokens=1500, window=WindowRule(policy="all"))),
    )


def _crowd(crowd: Crowd, layout: Layout, keeper: MakeKeeper = knows_nothing) -> MakeTraffic:
    return lambda seed, nodes, policies: Companions(crowd, layout, seed=seed, keeper=keeper(nodes, policies))
