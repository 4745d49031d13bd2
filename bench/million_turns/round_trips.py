"""How long the two round trips of a turn take, in a loop that says the next thing as soon as it may."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.million_turns.loading import TIMEOUT_S
from bench.million_turns.population import Outline
from bench.million_turns.talk import Speaker
from bench.million_turns.writing import Trips, take_turn
from history.redis_store import RedisStore
from history.window import WindowRule


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Waits:
    """One row of the table."""

    store: str
    at_once: int
    turns: int
    trips_per_turn: float
    begin: Spread
    commit: Spread
    both: Spread


@dataclass(frozen=True, slots=True)
class Round:
    """Turns on these conversations, `at_once` of them at a time."""

    targets: Sequence[Outline]
    turns: int
    at_once: int
    seed: str
    rule: WindowRule
    midway: Callable[[], object] | None = None
    """What is done to the server when a quarter of the turns is over."""


class Stopwatch:
    """Collects one row over several rounds."""

    def __init__(self, store: str, at_once: int) -> None:
        self.store = store
        self.at_once = at_once
        self._trips: list[Trips] = []
        self._commands = 0

    def run(self, url: str, now: Round) -> None:
        """One round."""
        trips, commands = asyncio.run(_run(url, now))
        self._trips += trips
        self._commands += commands

    def waits(self) -> Waits:
        """The row."""
        return Waits(
            store=self.store,
            at_once=self.at_once,
            turns=len(self._trips),
            trips_per_turn=self._commands / len(self._trips),
            begin=spread([one.begin_ms for one in self._trips]),
            commit=spread([one.commit_ms for one in self._trips]),
            both=spread([one.begin_ms + one.commit_ms for one in self._trips]),
        )


def spread(taken: Sequence[float]) -> Spread:
    """Percentiles by the nearest rank."""
    ordered = sorted(taken)
    return Spread(
        p50=ordered[(len(ordered) - 1) // 2],
        p99=ordered[-(-len(ordered) * 99 // 100) - 1],
        max=ordered[-1],
    )


async def _run(url: str, now: Round) -> tuple[list[Trips], int]:
    store = RedisStore(url, timeout_s=TIMEOUT_S)
    found: list[Trips] = []

    async def user(number: int) -> None:
        dice, speaker = random.Random(f"{now.seed}/{number}"), Speaker(f"{now.seed}/{number}")
        mine = now.targets[number :: now.at_once]
        turns = now.turns // now.at_once
        for turn in range(turns):
            if now.midway is not None and number == 0 and turn == turns // 4:
                await asyncio.to_thread(now.midway)
            owner, key = f"{now.seed}-{number}-{turn}", dice.choice(mine).key
            trips = await take_turn(store, key, owner, speaker.turn(), voice=speaker, rule=now.rule)
            found.append(trips)

    try:
        await store.ping()  # a connection of its own is no part of a turn
        await _warm_up(store, now)
        before = store.round_trips
        async with asyncio.TaskGroup() as group:
            for number in range(now.at_once):
                group.create_task(user(number))
        return found, store.round_trips - before
    finally:
        await store.close()


async def _warm_up(store: RedisStore, now: Round) -> None:
    """Open every connection and teach the server both scripts."""
    speaker = Speaker(f"{now.seed}/first")
    async with asyncio.TaskGroup() as group:
        for number, target in enumerate(now.targets[: now.at_once]):
            owner = f"{now.seed}-first-{number}"
            group.create_task(
                take_turn(store, target.key, owner, speaker.turn(), voice=speaker, rule=now.rule)
            )
