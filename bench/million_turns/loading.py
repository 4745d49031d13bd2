"""The whole population into one server, by several processes, a batch of conversations at a time."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.million_turns.population import Outline, batches, lengths, outline
from bench.million_turns.talk import Speaker
from bench.million_turns.writing import Written, write
from history.redis_store import RedisStore
from history.window import WindowRule

TIMEOUT_S = 60.0
"""A slow answer is a number here, not a failure."""
BATCH_TURNS = 2_000
AT_ONCE = 4
"""Conversations that one process writes at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to load, and how."""

    turns: int
    conversations: int
    seed: int
    processes: int
    rule: WindowRule

    def lengths(self) -> tuple[int, ...]:
        """Turns per conversation."""
        return lengths(self.turns, self.conversations, self.seed)

    def outline(self, number: int, length: int) -> Outline:
        """Conversation `number`."""
        return outline(number, length, self.seed)


@dataclass(frozen=True, slots=True)
class Loaded:
    """How loading went."""

    written: Written
    seconds: float


def load(url: str, plan: Plan) -> Loaded:
    """Write everything; a bar on standard error tells how far it is."""
    of, written, started = plan.lengths(), Written(), time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with progress() as bar, ProcessPoolExecutor(plan.processes, mp_context=context) as pool:
        task = bar.add_task("turns loaded", total=plan.turns)
        parts = [
            pool.submit(load_batch, url, plan, [(number, of[number]) for number in numbers])
            for numbers in batches(of, BATCH_TURNS)
        ]
        try:
            for part in as_completed(parts):
                written += part.result()
                bar.update(task, completed=written.turns)
        finally:
            pool.shutdown(cancel_futures=True)
    return Loaded(written, time.perf_counter() - started)


def load_batch(url: str, plan: Plan, batch: list[tuple[int, int]]) -> Written:
    """Write these conversations: number and length each."""
    return asyncio.run(write_all(url, [plan.outline(*one) for one in batch], plan.rule))


async def write_all(url: str, outlines: list[Outline], rule: WindowRule) -> Written:
    """Write conversations, a few at once; what is held in memory is a chunk of each."""
    store, waiting, written = RedisStore(url, timeout_s=TIMEOUT_S), iter(outlines), Written()

    async def worker(mine: Iterator[Outline]) -> None:
        nonlocal written
        for one in mine:
            speaker = Speaker(one.seed)
            done = await write(store, one, speaker.said(), voice=speaker, rule=rule)
            written += done

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker(waiting))
    finally:
        await store.close()
    return written


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar with numbers and the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar
