"""Two gateway processes race for one conversation; nothing is lost, doubled or reordered."""

import asyncio
import json
import os
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from history.conversation import ConversationKey, Lease
from history.ports import Begun, Busy, Claim
from history.redis_store import RedisStore
from tests.integration.racing_writer import TICKETS_A_ROUND

ROOT = Path(__file__).parents[2]
ROUNDS = 10
TURNS_EACH = ROUNDS * TICKETS_A_ROUND


@asynccontextmanager
async def writer(url: str, key: ConversationKey, name: str, turns: int) -> AsyncIterator[Process]:
    """A process of its own that is ready to write and waits for a line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "tests/integration/racing_writer.py")),
        *(url, key.tenant, key.id, name, str(turns)),
        stdin=PIPE,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert await line_of(process) == "ready"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: Process) -> str:
    """The next line that it prints; empty if it ended instead."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def go(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")


async def test_racing_processes_lose_double_and_reorder_nothing(valkey_url: str) -> None:
    """A hundred turns: each once, in the order of its ticket, each having seen every one before it.

    A round's tickets are all taken before the next round's, so its turns stand together.
    """
    key = ConversationKey("race", uuid.uuid4().hex)
    async with (
        writer(valkey_url, key, "left", TURNS_EACH) as left,
        writer(valkey_url, key, "right", TURNS_EACH) as right,
    ):
        store = RedisStore(valkey_url)
        # Both wait before anybody may write, and a round ends when both have their tickets: they race,
        # whatever the machine gives to each of them.
        held = await store.begin(key, Claim(owner="starter", lease_ms=60_000, queue_limit=8))
        assert isinstance(held, Begun)
        for number in range(ROUNDS):
            go(left)
            go(right)
            assert ["taken", "taken"] == await asyncio.gather(line_of(left), line_of(right))
            if number == 0:
                await store.release(key, held.lease)
        ends = await asyncio.gather(left.wait(), right.wait())
    turns = await store.read(key, 0, 10 * TURNS_EACH)
    await store.close()
    spoken = [json.loads(turn.messages[0]) for turn in turns]

    assert [0, 0] == ends
    assert list(range(2 * TURNS_EACH)) == [seen for _, _, seen in spoken]
    for who in ("left", "right"):
        assert list(range(TURNS_EACH)) == [number for whose, number, _ in spoken if whose == who]
    by_round = [spoken[at : at + 2 * TICKETS_A_ROUND] for at in range(0, len(spoken), 2 * TICKETS_A_ROUND)]
    assert [{"left": TICKETS_A_ROUND, "right": TICKETS_A_ROUND}] * ROUNDS == [
        Counter(whose for whose, _, _ in turns) for turns in by_round
    ]


async def test_killed_holder_holds_nobody_up(valkey_url: str) -> None:
    """A gateway killed with the lease in its hand frees it when the lease ends, and is fenced off."""
    key, claim = ConversationKey("race", uuid.uuid4().hex), Claim(owner="next", lease_ms=2_000, queue_limit=8)
    async with writer(valkey_url, key, "doomed", 0) as doomed:
        go(doomed)
        fence = int(await line_of(doomed))
    store = RedisStore(valkey_url)
    first = answer = await store.begin(key, claim)
    while not isinstance(answer, Begun):
        assert isinstance(answer, Busy)
        await asyncio.sleep(answer.holder_expires_ms / 1_000)
        answer = await store.begin(key, claim)
    renewal = await store.renew(key, Lease(owner="doomed", fence=fence, duration_ms=2_000))
    await store.close()

    assert isinstance(first, Busy)
    assert answer.lease.fence > fence
    assert not renewal.held
