"""Two processes talk, edit, fork and compact in the same conversations, some of which expire meanwhile.

Each process checks every prompt and whatever it reads (see `racing_replica`); here the stories of both are
held against what the store has in the end, and the life spans of all keys are watched all the while.
"""

import asyncio
import json
import os
import random
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import pytest
from redis.asyncio import Redis

from history.conversation import ConversationKey
from history.redis_store import RedisStore
from tests.integration.racing_replica import check_kept

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/integration/racing_replica.py"
OPERATIONS = 100


@dataclass
class Story:
    """What a process has told."""

    process: Process
    complaints: IO[bytes]
    lines: list[dict[str, Any]] = field(default_factory=list)
    kill_at: int = 0
    """Behind how many lines it is to be killed."""

    async def listen(self) -> None:
        """To its end, be it sudden."""
        assert self.process.stdout is not None
        while (line := await self.process.stdout.readline()).endswith(b"\n"):
            self.lines.append(json.loads(line))
            if len(self.lines) == self.kill_at:
                self.process.kill()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")


@asynccontextmanager
async def replica(url: str, tenant: str, who: str, seed: int) -> AsyncIterator[Story]:
    """A process that waits to be let go."""
    complaints = TemporaryFile()  # noqa: SIM115 - read when the story is over
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), url, tenant, who, str(seed), str(OPERATIONS)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=complaints,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    story = Story(process, complaints)
    listening = asyncio.create_task(story.listen())
    try:
        yield story
        await listening
        await process.wait()
    finally:
        listening.cancel()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def watch(raw: "Redis[bytes]", tenant: str, wrong: list[object], over: asyncio.Event) -> None:
    """Again and again: all keys of a conversation end at one instant, and none lives for ever.

    It is told when to end: redis-py may swallow a cancellation.
    """
    while not over.is_set():
        slots = {name.rpartition(b":")[0] async for name in raw.scan_iter(b"friendo:{%b:*" % tenant.encode())}
        for slot in slots:
            names = [slot + b":" + part for part in (b"meta", b"turns", b"digests", b"branches", b"ratings")]
            async with raw.pipeline(transaction=True) as together:
                for name in (*names, slot + b":wait"):
                    together.pexpiretime(name)
                *ends, wait = await together.execute()
            there = {end for end in ends if end != -2}
            if len(there) > 1 or -1 in there or wait == -1 or (there and ends[0] == -2):
                wrong.append((slot, ends, wait))
        await asyncio.sleep(0.01)


async def run(url: str, tenant: str, seed: int, *, kills: bool) -> list[Story]:
    """Two processes, one of which may be killed and followed by a third."""
    async with replica(url, tenant, "A", seed) as a, replica(url, tenant, "B", seed + 1) as b:
        b.kill_at = random.Random(seed).randint(50, 250) if kills else 0
        a.go()
        b.go()
        if not kills:
            return [a, b]
        await b.process.wait()
        async with replica(url, tenant, "C", seed + 2) as c:
            c.go()
        return [a, b, c]


@pytest.mark.parametrize("kills", [False, True], ids=["both live", "one is killed"])
async def test_racing_replicas_lose_and_double_nothing(valkey_url: str, *, kills: bool) -> None:
    """Whatever was told to be stored is there once; memories are true; nothing of what expired is left."""
    tenant, seed = f"t{uuid.uuid4().hex}", random.randrange(2**32)
    raw, wrong = Redis.from_url(valkey_url), list[object]()
    over = asyncio.Event()
    watching = asyncio.create_task(watch(raw, tenant, wrong, over))
    try:
        stories = await run(valkey_url, tenant, seed, kills=kills)
    finally:
        over.set()
        await watching
    assert [] == wrong, f"seed {seed}"
    for story in stories:
        story.complaints.seek(0)
        said = story.complaints.read().decode()
        story.complaints.close()
        assert story.process.returncode == 0 or (kills and story is stories[1]), f"seed {seed}: {said}"
    lines = [line for story in stories for line in story.lines]
    await check_long(valkey_url, tenant, lines)
    check_told(lines)
    left = await left_of_brief(raw, tenant)
    await raw.aclose()
    assert [] == left


async def left_of_brief(raw: "Redis[bytes]", tenant: str) -> list[bytes]:
    """What outlasts conversations that expired, apart from a fence: a late writer finds it for a day."""
    for _ in range(500):
        left = [
            name
            async for name in raw.scan_iter(f"friendo:{{{tenant}:brief*")
            if not name.endswith(b":meta") or await raw.hexists(name, "created_at")
        ]
        if not left:
            break
        await asyncio.sleep(0.02)
    return left


async def check_long(url: str, tenant: str, lines: list[dict[str, Any]]) -> None:
    """Those that live for long have what both processes were told is stored."""
    stored, tried, ids = defaultdict[str, set[str]](set), set[str](), set[str]()
    for line in lines:
        if "stored" in line:
            stored[line["to"]].add(line["stored"])
        if "tried" in line:
            tried.add(line["tried"])
        if ("stored" in line or "forked" in line) and line["to"].startswith("long"):
            ids.add(line["to"])
    store = RedisStore(url)
    for conversation_id in sorted(ids):
        key = ConversationKey(tenant, conversation_id)
        conversation = await store.load(key)
        assert conversation is not None, conversation_id
        kept = set(await check_kept(store, key, conversation))
        assert set() == stored[conversation_id] - kept, conversation_id
        assert set() == kept - tried, conversation_id
    await store.close()


def check_told(lines: list[dict[str, Any]]) -> None:
    """What the race is about has happened."""
    refused = {line["refused"] for line in lines if "refused" in line and line["to"].startswith("brief")}
    made = {line["compacted"] for line in lines if "compacted" in line and line["to"].startswith("long")}
    forks = [line for line in lines if "forked" in line]
    assert "kept" in made
    assert {"ConversationErased", "LeaseLost"} & refused
    assert len(forks) > 3
    assert len([line for line in lines if "stored" in line]) > 200
