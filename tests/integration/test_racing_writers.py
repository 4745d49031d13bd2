"""Two gateway processes race for one conversation; nothing is lost, doubled or reordered."""

import asyncio
import json
import multiprocessing
import os
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess

import pytest

from history.conversation import ConversationKey, Lease, Turn
from history.ports import Begun, Busy, Change, Claim, Missing
from history.redis_store import RedisStore

TURNS_EACH = 50
LEASE_MS = 2_000
Spoken = tuple[str, int, int]
"""Who said it, as which of its turns, and how many turns it saw before it."""


def claim(owner: str) -> Claim:
    return Claim(owner=owner, lease_ms=LEASE_MS, queue_limit=2 * TURNS_EACH)


async def await_turn(
    store: RedisStore, key: ConversationKey, owner: str, answer: Begun | Busy | Missing
) -> Begun:
    """Keep asking until the lease is ours, the rarer the farther back in the queue."""
    while not isinstance(answer, Begun):
        assert isinstance(answer, Busy)
        assert answer.position >= 0
        await asyncio.sleep(min(0.5, 0.01 * (answer.position + 1)))
        answer = await store.begin(key, claim(owner))
    return answer


async def write(
    store: RedisStore, key: ConversationKey, who: str, number: int, answer: Begun | Busy | Missing
) -> None:
    """Wait in line, then commit one turn that says what it saw."""
    held = await await_turn(store, key, f"{who}-{number}", answer)
    seen = held.conversation.turn_count
    assert seen == len(held.turns)
    spoken = json.dumps([who, number, seen]).encode()
    await asyncio.sleep(0)
    await store.commit(
        key, held.lease, Change(keep=seen, append=(Turn(messages=(spoken,), digests=bytes(16)),), at=1.0)
    )


async def race(url: str, key: ConversationKey, who: str) -> None:
    """Take all the tickets in order, then write whenever one is called."""
    store = RedisStore(url)
    async with asyncio.TaskGroup() as writers:
        for number in range(TURNS_EACH):
            answer = await store.begin(key, claim(f"{who}-{number}"))
            writers.create_task(write(store, key, who, number, answer))
    await store.close()


def run_race(url: str, key: ConversationKey, who: str) -> None:
    """One gateway process."""
    asyncio.run(race(url, key, who))


async def hold(url: str, key: ConversationKey, granted: "multiprocessing.SimpleQueue[Lease]") -> None:
    """Take the lease, tell, and never come back."""
    store = RedisStore(url)
    held = await store.begin(key, claim("doomed"))
    assert isinstance(held, Begun)
    granted.put(held.lease)
    await asyncio.Event().wait()


def run_hold(url: str, key: ConversationKey, granted: "multiprocessing.SimpleQueue[Lease]") -> None:
    """One gateway process that will die."""
    asyncio.run(hold(url, key, granted))


async def spoken_in(store: RedisStore, key: ConversationKey) -> list[Spoken]:
    """The dialogue as it ended up."""
    turns = await store.read(key, 0, 10 * TURNS_EACH)
    return [(who, number, seen) for who, number, seen in (json.loads(turn.messages[0]) for turn in turns)]


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    """Two processes that share nothing with this one."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


async def test_racing_processes_lose_double_and_reorder_nothing(
    processes: ProcessPoolExecutor, valkey_url: str
) -> None:
    """A hundred turns: each once, in the order of its tickets, each having seen every one before it."""
    key, loop = ConversationKey("race", uuid.uuid4().hex), asyncio.get_running_loop()
    await asyncio.gather(
        *(loop.run_in_executor(processes, run_race, valkey_url, key, who) for who in ("left", "right"))
    )
    store = RedisStore(valkey_url)
    spoken = await spoken_in(store, key)
    await store.close()

    assert list(range(2 * TURNS_EACH)) == [seen for _, _, seen in spoken]
    for who in ("left", "right"):
        assert list(range(TURNS_EACH)) == [number for whose, number, _ in spoken if whose == who]
    handovers = sum(before[0] != after[0] for before, after in zip(spoken, spoken[1:], strict=False))
    assert handovers > 2, "the two never raced"


async def test_killed_holder_holds_nobody_up(valkey_url: str) -> None:
    """A gateway killed with the lease in its hand frees it within the lease; its late words are refused."""
    key, context = ConversationKey("race", uuid.uuid4().hex), multiprocessing.get_context("spawn")
    granted: multiprocessing.SimpleQueue[Lease] = context.SimpleQueue()
    process: BaseProcess = context.Process(target=run_hold, args=(valkey_url, key, granted))
    process.start()
    lease = await asyncio.to_thread(granted.get)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.join)
    store = RedisStore(valkey_url)
    first = await store.begin(key, claim("next"))
    held = await await_turn(store, key, "next", first)
    renewal = await store.renew(key, lease)
    await store.close()

    assert isinstance(first, Busy)
    assert held.lease.fence > lease.fence
    assert not renewal.held
