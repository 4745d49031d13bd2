"""The Redis store on bad days: servers that restart, stay silent or lose an answer, callers that hang up."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from history.conversation import Conversation, ConversationKey, Turn
from history.errors import StoreUnavailable
from history.ports import Begun, Change, Claim
from history.redis_store import RedisStore
from tests.conftest import Valkey
from tests.ports import free_port

TURN = Turn(messages=(b'{"role":"user","content":"hello"}',), digests=bytes(16))


def new_key() -> ConversationKey:
    return ConversationKey(uuid.uuid4().hex, "c")


def claim(owner: str = "w") -> Claim:
    return Claim(owner=owner, lease_ms=10_000, queue_limit=8)


async def begin(store: RedisStore, key: ConversationKey, owner: str = "w") -> Begun:
    answer = await store.begin(key, claim(owner))
    assert isinstance(answer, Begun)
    return answer


async def say(store: RedisStore, key: ConversationKey, *, character: str = "c") -> Conversation:
    """One begin and one commit."""
    held = await begin(store, key, uuid.uuid4().hex)
    change = Change(keep=held.conversation.turn_count, append=(TURN,), at=1.0, character=character)
    return await store.commit(key, held.lease, change)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The address of a server that hands its connections to `handler`; it ends when all of them have."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await handler(reader, writer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        await asyncio.gather(*tasks)


async def test_restart_between_turns_is_not_noticed(valkey: Valkey) -> None:
    """Every idle connection is stale after a restart and no script is known; the next call still works."""
    key, store = new_key(), RedisStore(valkey.url)
    await asyncio.gather(*(say(store, new_key()) for _ in range(20)))
    await say(store, key)
    valkey.kill()
    valkey.start()
    after = await say(store, key)
    valkey.kill()
    valkey.start()
    ends = await asyncio.gather(*(say(store, new_key()) for _ in range(20)))
    held = await begin(store, key)
    valkey.kill()
    valkey.start()
    last = await store.commit(key, held.lease, Change(keep=2, append=(TURN,), at=1.0))
    await store.close()

    assert 2 == after.turn_count
    assert [1] * 20 == [conversation.turn_count for conversation in ends]
    assert 3 == last.turn_count


async def test_silent_and_absent_servers_are_unavailable(valkey: Valkey) -> None:
    """Nobody listening, and somebody listening who never answers, end in the same clear error."""
    absent = RedisStore(f"redis://127.0.0.1:{free_port()}/0", timeout_s=5)
    with pytest.raises(StoreUnavailable):
        await absent.ping()
    refused = RedisStore(f"{valkey.url.removesuffix('/0')}/99")
    with pytest.raises(StoreUnavailable, match="DB index"):
        await refused.ping()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(say_nothing) as url:
        silent = RedisStore(url, timeout_s=0.1)
        for call in (silent.begin(new_key(), claim()), silent.load(new_key()), silent.erase(new_key())):
            with pytest.raises(StoreUnavailable, match="in time"):
                await call
        await silent.close()


async def test_answer_lost_on_the_way_is_asked_for_again(valkey_url: str) -> None:
    """A connection that dies after the command was carried out repeats it, and nothing happens twice."""
    port = int(valkey_url.removesuffix("/0").rpartition(":")[2])
    swallowed: list[bytes] = []
    lose = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        while request := await reader.read(65_536):
            up_writer.write(request)
            answer = await up_reader.read(65_536)
            if lose.is_set() and not answer.startswith(b"-NOSCRIPT"):
                lose.clear()
                swallowed.append(answer)
                break
            writer.write(answer)
        up_writer.close()
        await up_writer.wait_closed()

    async with serving(relay) as url:
        store = RedisStore(url)
        key = new_key()
        lose.set()
        held = await begin(store, key)
        lose.set()
        after = await store.commit(key, held.lease, Change(keep=0, append=(TURN,), at=1.0, new_epoch=True))
        turns = await store.read(key, 0, 9)
        await store.close()

    assert 2 == len(swallowed)
    assert (1, 1, 1) == (held.lease.fence, after.turn_count, after.epoch)
    assert (TURN,) == turns


async def test_cancelled_call_leaves_no_answer_behind(valkey_url: str) -> None:
    """A client that hangs up while the store is asked does not hand its answer to the next one."""
    keys, store = [new_key() for _ in range(30)], RedisStore(valkey_url)
    for number, key in enumerate(keys):
        await say(store, key, character=str(number))
    doomed = [asyncio.ensure_future(store.load(key)) for key in keys]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for call in doomed:
        call.cancel()
    await asyncio.gather(*doomed, return_exceptions=True)
    loaded = [await store.load(key) for key in keys]
    await store.close()

    assert [str(number) for number in range(30)] == [found.character for found in loaded if found]


async def test_connections_are_bounded(valkey: Valkey) -> None:
    """However many ask at once, only so many connections are open, and all are answered."""
    store, raw = RedisStore(valkey.url, pool_size=3), Redis.from_url(valkey.url)
    await asyncio.gather(*(say(store, new_key()) for _ in range(40)))
    clients = (await raw.info("clients"))["connected_clients"]
    await store.close()
    await raw.aclose()

    assert 3 + 1 == clients
