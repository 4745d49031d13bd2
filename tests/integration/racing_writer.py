"""One gateway process of the race, run as a program: `racing_writer.py URL TENANT ID NAME TURNS`.

It says `ready`. For every line that it reads it takes `TICKETS_A_ROUND` tickets in order, says `taken`, and
writes a turn for each when it is called, until TURNS are written. With TURNS 0 it takes the lease instead, at
the first line, tells its fence and never comes back.
"""

import asyncio
import json
import sys

from history.conversation import ConversationKey, Turn
from history.ports import Begun, Busy, Change, Claim, Missing
from history.redis_store import RedisStore

LEASE_MS = 2_000
TICKETS_A_ROUND = 5


def claim(owner: str) -> Claim:
    return Claim(owner=owner, lease_ms=LEASE_MS, queue_limit=200)


async def write(
    store: RedisStore, key: ConversationKey, spoken: tuple[str, int], answer: Begun | Busy | Missing
) -> None:
    """Keep asking until the lease is ours, the rarer the farther back, then say how many turns we saw."""
    owner = f"{spoken[0]}-{spoken[1]}"
    while not isinstance(answer, Begun):
        if not isinstance(answer, Busy) or answer.position < 0:
            raise RuntimeError(f"{owner} lost its place: {answer}")
        await asyncio.sleep(min(0.5, 0.01 * (answer.position + 1)))
        answer = await store.begin(key, claim(owner))
    seen = len(answer.turns)
    turn = Turn(messages=(json.dumps([*spoken, seen]).encode(),), digests=bytes(16))
    await store.commit(key, answer.lease, Change(keep=seen, append=(turn,), at=1.0))


async def race(store: RedisStore, key: ConversationKey, who: str, turns: int) -> None:
    """Take tickets in order, a round at a time, and write whenever one is called."""
    async with asyncio.TaskGroup() as writers:
        for number in range(turns):
            if number % TICKETS_A_ROUND == 0:
                await asyncio.to_thread(sys.stdin.readline)
            answer = await store.begin(key, claim(f"{who}-{number}"))
            writers.create_task(write(store, key, (who, number), answer))
            if number % TICKETS_A_ROUND == TICKETS_A_ROUND - 1:
                print("taken", flush=True)


async def hold(store: RedisStore, key: ConversationKey, who: str) -> None:
    """Take the lease, tell its fence, and never come back."""
    await asyncio.to_thread(sys.stdin.readline)
    answer = await store.begin(key, claim(who))
    if not isinstance(answer, Begun):
        raise TypeError(f"nobody else writes: {answer}")
    print(answer.lease.fence, flush=True)
    await asyncio.Event().wait()


async def main(url: str, key: ConversationKey, who: str, turns: int) -> None:
    store = RedisStore(url)
    await (race(store, key, who, turns) if turns else hold(store, key, who))
    await store.close()


if __name__ == "__main__":
    _, address, tenant, conversation_id, name, count = sys.argv
    print("ready", flush=True)
    asyncio.run(main(address, ConversationKey(tenant, conversation_id), name, int(count)))
