"""Of a window that a replica knows it is told only what is new, whatever other replicas did meanwhile."""

import asyncio
import itertools
import uuid
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from history import redis_store
from history.conversation import Binding, Conversation, ConversationKey, Memory, Turn
from history.ports import Archived, Begun, Change, Claim, Learned
from history.redis_keys import conversation_keys
from history.redis_store import RedisStore
from tests.contract.store_stage import turn

TENANT = "replicas"
owners = (f"owner-{number}" for number in itertools.count())

replicas = st.integers(0, 1)
turns = st.tuples(
    st.just("turn"),
    replicas,
    st.integers(0, 3),
    st.lists(st.sampled_from("xyz"), max_size=3),
    st.integers(0, 6),
)
steps = st.one_of(
    turns,
    turns,
    turns,
    st.tuples(st.just("look"), replicas),
    st.tuples(st.just("look"), replicas),
    st.tuples(st.just("remember"), replicas),
    st.tuples(st.just("rebind"), replicas),
    st.tuples(st.just("describe"), replicas),
    st.tuples(st.just("shed"), replicas),
    st.tuples(st.just("erase"), replicas),
    st.tuples(st.sampled_from(["expire", "back_up", "lose"])),
)


async def begin(store: RedisStore, key: ConversationKey) -> Begun:
    begun = await store.begin(key, Claim(owner=next(owners), lease_ms=10_000, queue_limit=1))
    assert isinstance(begun, Begun)
    return begun


class Replicas:
    """Two stores that keep windows in mind and one that keeps nothing, on one server."""

    def __init__(self, url: str) -> None:
        self.key = ConversationKey(TENANT, uuid.uuid4().hex)
        self.stores = (RedisStore(url), RedisStore(url))
        self.forgetful = RedisStore(url, window_bytes=0)
        self.server: Redis[bytes] = Redis.from_url(url)
        self.numbers = itertools.count()
        self.backup: dict[bytes, bytes] = {}

    async def truth(self) -> tuple[Conversation, tuple[Turn, ...]]:
        """What is stored, read without any memory of it."""
        conversation = await self.forgetful.load(self.key) or Conversation()
        return conversation, await self.forgetful.read(self.key, conversation.cut, conversation.turn_count)

    async def turn(self, replica: int, replaced: int, said: list[str], moved: int) -> None:
        """One turn, which may replace some, add several or none, and move the cut."""
        store = self.stores[replica]
        begun = await begin(store, self.key)
        assert await self.truth() == (begun.conversation, begun.turns)
        before = begun.conversation
        keep = max(before.base, before.turn_count - replaced if replaced > 1 else before.turn_count)
        change = Change(
            keep=keep,
            append=tuple(turn(text) for text in said),
            at=2.5,
            cut=max(before.base, min(keep + len(said), before.cut + moved // 2)),
            save_branch=replaced == 3,
            binding=Binding("n", b"link", moved, 1.0) if moved % 2 else None,
            metadata=b"{}" if moved == 4 else None,
            persona=b"persona" if moved == 3 else None,
        )
        after = await store.commit(self.key, begun.lease, change)
        assert (await self.truth())[0] == after

    async def look(self, replica: int) -> None:
        """A turn that is given up."""
        begun = await begin(self.stores[replica], self.key)
        assert await self.truth() == (begun.conversation, begun.turns)
        await self.stores[replica].release(self.key, begun.lease)

    async def remember(self, replica: int) -> None:
        conversation, _ = await self.truth()
        covers_to = conversation.turn_count
        digests = b"".join(await self.forgetful.digests(self.key))
        memory = Memory(
            covers_to=covers_to, version=conversation.memory_version + 1, summary=f"s{next(self.numbers)}"
        )
        learned = Learned(memory, conversation.memory_version, 0, digests)
        await self.stores[replica].remember(self.key, learned)

    async def rebind(self, replica: int) -> None:
        conversation, _ = await self.truth()
        binding = Binding("m", b"other", 7, 2.0)
        await self.stores[replica].rebind(self.key, binding, turn_count=conversation.turn_count)

    async def describe(self, replica: int) -> None:
        await self.stores[replica].describe(self.key, b'{"a":"b"}')

    async def shed(self, replica: int) -> None:
        conversation, _ = await self.truth()
        start, stop = conversation.base, conversation.cut
        digests = b"".join(await self.forgetful.digests(self.key, start, stop))
        await self.stores[replica].shed(self.key, Archived(start=start, stop=stop, digests=digests))

    async def erase(self, replica: int) -> None:
        await self.stores[replica].erase(self.key)

    async def expire(self) -> None:
        """Nobody tells the replicas."""
        await self.server.unlink(*conversation_keys(self.key))

    async def back_up(self) -> None:
        kept = {name: await self.server.dump(name) for name in conversation_keys(self.key)}
        self.backup = {name: bytes(dumped) for name, dumped in kept.items() if dumped}

    async def lose(self) -> None:
        """The server comes back with what it had a while ago, or a replica that lagged takes over."""
        await self.expire()
        for name, dumped in self.backup.items():
            await self.server.restore(name, 0, dumped)

    async def play(self, sequence: Sequence[tuple[object, ...]]) -> None:
        try:
            for name, *arguments in sequence:
                await getattr(self, str(name))(*arguments)
            for replica in (0, 1):
                await self.look(replica)
        finally:
            await self.close()

    async def close(self) -> None:
        for store in (*self.stores, self.forgetful):
            await store.close()
        await self.server.aclose()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(steps, max_size=25))
def test_what_a_replica_knows_is_what_is_stored(valkey_url: str, sequence: list[tuple[object, ...]]) -> None:
    """Whatever two do in turn, each begins with the window that is stored, and commits tell the truth."""
    asyncio.run(Replicas(valkey_url).play(sequence))


def test_a_memory_that_the_server_lost_is_not_shown(valkey_url: str) -> None:
    """Neither where the next one has its number."""
    said = ("turn", 0, 0, ["x", "y"], 0)
    lost = [("back_up",), ("remember", 1), ("look", 0), ("lose",), ("remember", 1), ("look", 0)]
    asyncio.run(Replicas(valkey_url).play([said, *lost]))


async def test_windows_go_though_nobody_comes(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was erased on another replica does not wait here for the next message."""
    monkeypatch.setattr(redis_store, "_IDLE_S", 0.0)
    monkeypatch.setattr(redis_store, "_PRUNE_EVERY_S", 0.01)
    replicas = Replicas(valkey_url)
    await replicas.turn(0, 0, ["x"], 0)
    windows = replicas.stores[0]._windows
    windows.put(replicas.key, windows.get(replicas.key))

    for _ in range(500):
        if windows:
            await asyncio.sleep(0.01)
    assert windows.bytes == 0
    await replicas.close()
