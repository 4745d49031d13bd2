"""The store of dialogues is away for a while, silent or dead, and two gateways go on without it.

One refuses conversations meanwhile (`fail_closed`), the other answers them without memory (`stateless`), so
that each dialogue, which goes round both, meets both.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import pytest

from bench.stub_node.spec import StubSpec
from tests.conftest import Valkey
from tests.live_fleet import (
    Replicas,
    Stubs,
    Talk,
    Turn,
    pause,
    precision,
    running_replicas,
    running_stubs,
    words,
)

AWAY_S = 6.0
BEFORE_S = 4.0
STORE_TIMEOUT_S = 0.5
"""What a request waits for a store that is silent."""
TALKS = 24
"""Of each kind."""
SPEC = StubSpec(prefill_rate=8_000.0, answer_tokens=12, context_length=65_536)
REFUSED = "store_unavailable"


@dataclass
class Scene:
    """Who talks, and when the store was away."""

    replicas: Replicas
    remembered: list[Talk]
    stateless: list[Talk]
    away: tuple[float, float] = (float("inf"), float("inf"))
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self, talk: Talk) -> None:
        """Turn after turn; whoever is refused asks again, with the same key."""
        dice = random.Random(talk.name)
        await asyncio.sleep(dice.uniform(0, 2.0))
        while not self.is_over.is_set():
            await talk.say(self.replicas.for_turn(talk), stream=dice.random() < 0.5)
            await pause(dice.uniform(0.5, 1.5), self.is_over)

    def during(self, talks: list[Talk]) -> list[Turn]:
        """Requests that began and ended while it was away, as far as can be told."""
        since, until = self.away
        return [
            turn for talk in talks for turn in talk.turns if since < turn.asked_at < until - STORE_TIMEOUT_S
        ]

    def after(self, talk: Talk) -> list[Turn]:
        """What a dialogue was answered with its memory once the store was back."""
        return [
            turn
            for turn in talk.turns
            if turn.asked_at > self.away[1] and turn.is_whole and not turn.is_forgetful
        ]


async def take_away(valkey: Valkey, how: Literal["silent", "dead"]) -> tuple[float, float]:
    """From when to when it was."""
    since = time.monotonic()
    if how == "silent":
        os.kill(valkey.pid, signal.SIGSTOP)
        await asyncio.sleep(AWAY_S)
        os.kill(valkey.pid, signal.SIGCONT)
    else:
        valkey.kill()
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(valkey.start)
    return since, time.monotonic()


async def play(valkey: Valkey, how: Literal["silent", "dead"]) -> tuple[Scene, Stubs]:
    """Before, meanwhile, and after: until every conversation went on."""
    store = ("--redis", valkey.url, "--set", f"store.timeout_s={STORE_TIMEOUT_S}")
    async with (
        running_stubs(4, SPEC) as stubs,
        running_replicas(stubs.urls, store, (*store, "--set", "history.on_outage=stateless")) as replicas,
    ):
        scene = Scene(
            replicas,
            [Talk(f"kept {number}", words(300, number)) for number in range(TALKS)],
            [Talk(f"sent {number}", words(300, -number - 1), is_remembered=False) for number in range(TALKS)],
        )
        async with asyncio.TaskGroup() as tasks:
            for talk in (*scene.remembered, *scene.stateless):
                tasks.create_task(scene.live(talk))
            await asyncio.sleep(BEFORE_S)
            scene.away = await take_away(valkey, how)
            while any(len(scene.after(talk)) < 2 for talk in scene.remembered):  # noqa: ASYNC110 - users tell nobody
                await asyncio.sleep(0.2)
            scene.is_over.set()
    return scene, stubs


@pytest.mark.parametrize("how", ["silent", "dead"])
async def test_traffic_goes_on_and_bindings_recover(valkey: Valkey, how: Literal["silent", "dead"]) -> None:
    """Stateless dialogues notice nothing; conversations do as they are told, and find their node again."""
    scene, stubs = await play(valkey, how)
    meanwhile = scene.during(scene.remembered)
    behaved = Counter((turn.status, turn.code, turn.is_forgetful) for turn in meanwhile)
    hits = precision(turn for turn in scene.during(scene.stateless) if turn.best)
    back = [scene.after(talk)[0] for talk in scene.remembered]
    print(
        f"\n{how} for {AWAY_S:g} s: {len(scene.during(scene.stateless))} stateless turns, "
        f"precision {hits:.3f}; conversations {dict(behaved)}, then warm {precision(back):.3f}"
    )

    assert all(turn.is_whole and not turn.code for talk in scene.stateless for turn in talk.turns)
    assert hits >= 0.9
    assert {(503, REFUSED, False), (200, "", True)} == set(behaved)
    assert precision(back) >= 0.9
    for talk in scene.remembered:
        check_nothing_lost(talk, stubs)


def check_nothing_lost(talk: Talk, stubs: Stubs) -> None:
    """The last prompt that a node got is all that was acknowledged, and the new message."""
    last = scene_prompt(talk, stubs)
    assert talk.dialogue[: len(last)] == last
    assert len(last) == len(talk.dialogue) - 1


def scene_prompt(talk: Talk, stubs: Stubs) -> list[dict[str, str]]:
    """The newest of its prompts that its node remembers."""
    recent = stubs.nodes[talk.home].node.traffic.recent()
    own = [one["body"]["messages"] for one in recent if one["body"]["messages"][0]["content"] == talk.persona]
    return [{"role": one["role"], "content": one["content"]} for one in own[-1]]
