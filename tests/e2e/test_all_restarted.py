"""All nodes restarted at once, their caches empty, while everybody comes back: no spiral."""

import asyncio
import time

from bench.stub_node.spec import StubSpec
from tests.live_fleet import Replicas, Stubs, Talk, Turn, running_replicas, running_stubs, spread, words

NODES = 8
RETURNING = 200
PREFILL_RATE = 20_000.0
PERSONA_TOKENS = 800
TURNS_BEFORE = 3
AWAY_S = 0.5
LOOKED_AT_S = 2.0
"""How often a gateway asks how a node is, and when a client whose nodes are all down is told to come back."""
UNEVEN = 3.0
"""Nodes get twice the mean at most of what spreads by chance, and half of the rest is for the machine."""
EACH = 1.15
"""Cold prefills: one, and what was warmed in the background for some who then were sent elsewhere."""
TRIES = 10
TURNED_AWAY = {(503, "no_node_available"), (502, "node_failed")}
"""While all nodes are down: it is known, or three of them were tried in vain."""
SDK_PAUSE_S = 0.5
COLD = 0.5


async def first_turns(talk: Talk, replicas: Replicas, gate: asyncio.Semaphore) -> None:
    """Before the restart: so much that engines' counters can be seen to go back."""
    async with gate:
        for _ in range(TURNS_BEFORE):
            await talk.say(replicas.for_turn(talk))


async def come_back(talk: Talk, replicas: Replicas) -> Turn:
    """As an SDK does: whoever is turned away comes back when told, or half a second later."""
    for _ in range(TRIES):
        turn = await talk.say(replicas.for_turn(talk))
        if turn.is_whole:
            return turn
        assert (turn.status, turn.code) in TURNED_AWAY
        await asyncio.sleep(turn.retry_after_s or SDK_PAUSE_S)
    raise AssertionError(f"{talk.name} was turned away {TRIES} times")


async def restart(stubs: Stubs) -> float:
    """Every node at once; when they were up again."""
    await asyncio.gather(*map(stubs.stop, stubs.ports))
    await asyncio.sleep(AWAY_S)
    for port in stubs.ports:
        await stubs.start(port)
    return time.monotonic()


async def returned(talks: list[Talk], replicas: Replicas, stubs: Stubs) -> tuple[float, list[Turn]]:
    """When the nodes were up again, and the first answers of all who came back meanwhile."""
    async with asyncio.TaskGroup() as tasks:
        restarting = tasks.create_task(restart(stubs))
        await asyncio.sleep(AWAY_S / 2)
        firsts = [tasks.create_task(come_back(talk, replicas)) for talk in talks]
    return restarting.result(), [task.result() for task in firsts]


async def test_everybody_is_answered_after_about_one_cold_prefill(valkey_url: str) -> None:
    """All of them come while no node is up. Hardly anything is computed twice, and nobody waits for ever."""
    stores, stamp = (("--redis", valkey_url),) * 2, time.time_ns()
    async with (
        running_stubs(NODES, StubSpec(prefill_rate=PREFILL_RATE, answer_tokens=12)) as stubs,
        running_replicas(stubs.urls, *stores) as replicas,
    ):
        # Nobody shares anything: so many cold prefills are needed.
        talks = [Talk(f"back {n} {stamp}", words(PERSONA_TOKENS, (n, stamp))) for n in range(RETURNING)]
        gate = asyncio.Semaphore(16)
        await asyncio.gather(*(first_turns(talk, replicas, gate) for talk in talks))
        up_at, firsts = await returned(talks, replicas, stubs)
        computed = stubs.computed()
        seconds = [await talk.say(replicas.for_turn(talk)) for talk in talks[::4]]
    needed = sum(turn.prompt for turn in firsts)
    waits = sorted(turn.first_at - max(turn.asked_at, up_at) for turn in firsts)
    p99 = waits[int(0.99 * len(waits))]
    bound = UNEVEN * needed / NODES / PREFILL_RATE + 2 * LOOKED_AT_S
    again = sum(talk.turns[-1].cached < COLD * talk.turns[-1].prompt for talk in talks[::4])
    print(
        f"\n{RETURNING} came back: {sum(computed.values()) / needed:.3f} cold prefills each, "
        f"{spread(computed.values()):.2f} max/mean; "
        f"p99 {p99:.2f} s of {bound:.2f}; cold again {again} of {len(seconds)}"
    )

    assert all(turn.is_whole for turn in (*firsts, *seconds))
    assert sum(computed.values()) <= EACH * needed
    assert p99 <= bound
    assert again <= 0.1 * len(seconds)
