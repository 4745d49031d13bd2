"""Turns from two gateways' stores while their master dies: what was acknowledged is there, once, in order.

The master has one replica, which is waited for, so whatever was acknowledged is on the one that takes over.
"""

import asyncio
import itertools
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from history.conversation import ConversationKey, Turn
from history.errors import StoreUnavailable
from history.ports import Begun, Change, Claim
from history.redis_place import Durability, parse_place
from history.redis_store import RedisStore
from tests.gateway_process import running_gateway, running_stub
from tests.redis_topologies import Watched, running_watched, wait_for_replica

CONVERSATIONS = 48
LEASE_MS = 2_000
BEFORE_S, STALLED_S, BEHIND_S, AFTER_S = 0.7, 0.7, 0.2, 1.0


@dataclass
class Writer:
    """One conversation's client: sends a message until it is told that its turn is stored, then the next."""

    key: ConversationKey
    store: RedisStore
    answer_s: float
    """What a model would take; not the same for all, so that a fault finds them at different points."""
    acknowledged: list[str] = field(default_factory=list)
    acknowledged_at: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    async def run(self, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            text = f"{self.key.id} says {number}"
            try:
                await self.say(text)
            except StoreUnavailable:
                self.outcomes["refused"] += 1
                await asyncio.sleep(0.1)
            else:
                self.outcomes["acknowledged"] += 1
                self.acknowledged.append(text)
                self.acknowledged_at.append(time.monotonic())
                number += 1
                await asyncio.sleep(0.01)

    async def say(self, text: str) -> None:
        """One request, as a gateway serves it: a retry of a stored turn gets the stored answer."""
        claim = Claim(owner=uuid.uuid4().hex, lease_ms=LEASE_MS, queue_limit=8)
        held = await self.store.begin(self.key, claim)
        while not isinstance(held, Begun):  # a lease of a request that was refused
            self.outcomes["waited"] += 1
            await asyncio.sleep(0.05)
            held = await self.store.begin(self.key, claim)
        if held.turns and held.turns[-1].idempotency_key == text:
            self.outcomes["replayed"] += 1
            await self.store.release(self.key, held.lease)
            return
        turn = Turn(messages=(text.encode(),), digests=bytes(16), idempotency_key=text)
        await asyncio.sleep(self.answer_s)
        count = held.conversation.turn_count
        cut = max(0, count - 3)
        await self.store.commit(self.key, held.lease, Change(keep=count, append=(turn,), at=1.0, cut=cut))


@dataclass(frozen=True)
class Run:
    """What a failover came to."""

    writers: list[Writer]
    stored: dict[ConversationKey, list[str]]
    killed_at: float
    promoted_at: float

    def lost(self) -> int:
        """Acknowledged turns that are nowhere."""
        return sum(len(set(one.acknowledged) - set(self.stored[one.key])) for one in self.writers)

    def report(self, title: str) -> None:
        """For the one who reads the tests' output."""
        total = sum((writer.outcomes for writer in self.writers), Counter[str]())
        after = [at for one in self.writers for at in one.acknowledged_at if at > self.promoted_at]
        print(
            f"\n{title}: {len(self.writers)} conversations, two stores; {total['acknowledged']} turns "
            f"acknowledged ({total['replayed']} of them stored by a call that was refused), "
            f"{total['refused']} calls refused, {self.lost()} acknowledged turns lost; new master after "
            f"{self.promoted_at - self.killed_at:.1f} s, first turn after {min(after) - self.killed_at:.1f} s"
        )


async def failover(watched: Watched, durability: Durability) -> Run:
    """Stall the replica for a while, later cut it off and kill the master; all of it under load."""
    stores = [RedisStore(parse_place(watched.url), timeout_s=1.0, durability=durability) for _ in range(2)]
    writers = [
        Writer(ConversationKey("t", f"c{number}"), stores[number % 2], answer_s=0.001 * (10 + number))
        for number in range(CONVERSATIONS)
    ]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for writer in writers:
            tasks.create_task(writer.run(stop))
        await asyncio.sleep(BEFORE_S)
        os.kill(watched.replica.pid, signal.SIGSTOP)
        await asyncio.sleep(STALLED_S)
        os.kill(watched.replica.pid, signal.SIGCONT)
        await asyncio.sleep(BEFORE_S)
        os.kill(watched.replica.pid, signal.SIGSTOP)
        await asyncio.to_thread(watched.cut_off_replica)
        await asyncio.sleep(BEHIND_S)
        watched.master.kill()
        killed_at = time.monotonic()
        os.kill(watched.replica.pid, signal.SIGCONT)
        await asyncio.to_thread(watched.wait_for_promotion)
        promoted_at = time.monotonic()
        await asyncio.to_thread(watched.rejoin)
        await asyncio.to_thread(wait_for_replica, watched.master)
        await asyncio.sleep(AFTER_S)
        stop.set()
    stored = {one.key: await stores[0].read(one.key, 0, 100_000) for one in writers}
    for store in stores:
        await store.close()
    texts = {key: [turn.idempotency_key for turn in turns] for key, turns in stored.items()}
    return Run(writers, texts, killed_at, promoted_at)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A master with a replica and three sentinels, to be broken."""
    with running_watched(tmp_path) as servers:
        yield servers


async def test_failover_under_load_loses_no_acknowledged_turn_and_doubles_none(watched: Watched) -> None:
    """The master gets SIGKILL in the middle; whoever is not acknowledged gets `StoreUnavailable`."""
    run = await failover(watched, Durability(wait_replicas=1, wait_s=0.5))

    run.report("waiting for one replica")
    for writer in run.writers:
        texts = run.stored[writer.key]
        assert writer.acknowledged == texts[: len(writer.acknowledged)]
        # At most the one turn that was in the air when the test ended.
        assert len(texts) <= len(writer.acknowledged) + 1
        assert writer.acknowledged_at[0] < run.killed_at
        assert writer.acknowledged_at[-1] > run.promoted_at
    assert sum(writer.outcomes["refused"] for writer in run.writers) > CONVERSATIONS
    assert sum(writer.outcomes["replayed"] for writer in run.writers) > 0


async def test_failover_without_waiting_loses_what_the_replica_did_not_have(watched: Watched) -> None:
    """What the setting is for: the same failover forgets turns that clients were told of."""
    run = await failover(watched, Durability())

    run.report("waiting for none")
    assert run.lost() > 0


def test_clients_of_two_gateways_get_503_until_the_new_master_is_there(watched: Watched) -> None:
    """One conversation through both in turn; the client repeats what was refused, with the same key."""
    options = (
        *("--set", f"store.url={watched.url}", "--set", "store.timeout_s=1"),
        *("--set", "store.durability={wait_replicas: 1, wait_s: 0.5}"),
    )
    statuses: Counter[int] = Counter()
    with (
        running_stub() as stub,
        running_gateway(f"vllm={stub.url}", options=options) as one,
        running_gateway(f"vllm={stub.url}", options=options) as two,
    ):
        for number in range(12):
            if number == 4:
                watched.master.kill()
            body = {"model": "stub", "messages": [{"role": "user", "content": f"message {number}"}]}
            headers = {"x-session-id": "c", "idempotency-key": f"key {number}"}
            for gateway in itertools.cycle((one, two)):
                url = f"{gateway.url}/v1/chat/completions"
                answer = httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)
                statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    break
                assert "store_unavailable" == answer.json()["error"]["code"]
                if statuses[503] == 2:
                    watched.wait_for_promotion()
                    watched.rejoin()
        said = [message["content"] for message in stub.prompts()[-1] if message["role"] == "user"]

    print(f"\n{statuses[200]} answers with 200, {statuses[503]} with 503")
    assert [f"message {number}" for number in range(12)] == said
    assert {200, 503} == set(statuses)
