"""Two stores under one tenant that are given the same commands, and what their writers hold meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from history.compaction import shown
from history.conversation import Binding, Conversation, ConversationKey, Lease, Memory, Turn
from history.errors import HistoryError
from history.meaning import Vectors
from history.ports import Archived, Begun, Busy, Change, Claim, ConversationStore, Learned
from history.store_rules import MEMORIES_KEPT
from tests.contract.store_side import Act, Side, fitted
from tests.contract.store_stage import turn

_FORKS = 2
Answers = tuple[Any, Any]


@dataclass
class Pair:
    """Both stores, their conversations, and what somebody still holds of them."""

    memory: Side
    redis: Side
    keys: list[ConversationKey]
    granted: dict[ConversationKey, list[Lease]] = field(default_factory=dict)
    last: dict[ConversationKey, tuple[Lease, Change]] = field(default_factory=dict)
    noted: dict[ConversationKey, Learned] = field(default_factory=dict)
    """Compactions under way: what each will bring."""
    forks: int = 0

    async def obey(self, name: str, *arguments: Any) -> Answers:
        """Give both stores the command; what each answered or raised."""
        if name in ("conversations_of", "erase_user"):
            return await self.both(lambda store: getattr(store, name)(self.keys[0].tenant, *arguments))
        place, *rest = arguments
        key = self.keys[place % len(self.keys)]
        if own := getattr(self, f"on_{name}", None):
            answers: Answers = await own(key, *rest)
            return answers
        if name in ("append", "edit", "select"):
            return await self.both_sides(lambda side: getattr(side, name)(key, *rest))
        answers = await self.both(lambda store: getattr(store, name)(key, *rest))
        if isinstance(answers[0], Begun):
            self.granted.setdefault(key, []).append(answers[0].lease)
        return answers

    async def both(self, call: Callable[[ConversationStore], Awaitable[Any]]) -> Answers:
        return await self.both_sides(lambda side: call(side.store))

    async def both_sides(self, call: Callable[[Side], Awaitable[Any]]) -> Answers:
        return await outcome(call(self.memory)), await outcome(call(self.redis))

    async def known(self, key: ConversationKey) -> Conversation:
        """What is there, or an empty one."""
        return await self.memory.store.load(key) or Conversation()

    async def on_pass(self, _: ConversationKey, ms: int) -> Answers:
        """All conversations age: the clock in memory is one."""
        return await self.both_sides(lambda side: side.pass_ms(ms))

    async def on_turn(self, key: ConversationKey, claim: Claim, change: Change) -> Answers:
        answers = await self.obey("begin", self.keys.index(key), claim)
        began = isinstance(answers[0], Begun) and answers[0] == answers[1]
        return await self.on_fitting(key, change) if began else answers

    async def on_register(self, key: ConversationKey, user: str) -> Answers:
        return await self.both(lambda store: store.register(key.tenant, user, key))

    async def on_unregister(self, key: ConversationKey, user: str) -> Answers:
        return await self.both(lambda store: store.unregister(key.tenant, user, key))

    async def on_rebind(self, key: ConversationKey, binding: Binding, turn_count: int) -> Answers:
        return await self.both(lambda store: store.rebind(key, binding, turn_count=turn_count))

    async def on_shed(self, key: ConversationKey, late: int, count: int, wrong: bytes) -> Answers:
        start = (await self.known(key)).base + late
        stop = start + max(0, count)
        digests = b"".join((await self.memory.store.digests(key))[start:stop]) + wrong
        archived = Archived(start=start, stop=stop, digests=digests)
        return await self.both(lambda store: store.shed(key, archived))

    async def on_restore(self, key: ConversationKey, count: int, late: int) -> Answers:
        base = (await self.known(key)).base
        start = max(0, base - count) + late
        turns = [turn(f"restored {at}") for at in range(start, base + late)]
        return await self.both(lambda store: store.restore(key, start, turns))

    async def on_embed(
        self, key: ConversationKey, late: int, start: int, texts: list[str], form: str, most: int
    ) -> Answers:
        """Vectors of the turns as they are now, or of those before some were replaced."""
        known = await self.known(key)
        vectors = Vectors(
            form=form,
            past=known.past.number - late,
            created_at=known.created_at,
            start=start,
            records=tuple(text.encode() * 9 for text in texts),
        )
        return await self.both(lambda store: store.embed(key, vectors, most=most))

    async def on_remember(
        self, key: ConversationKey, late: int, back: int, covers_to: int, wrong: bytes
    ) -> Answers:
        """A version that is made of what is there, or of something else."""
        learned = await self.learned(key, back=back, covers_to=covers_to, late=late, wrong=wrong)
        return await self.both(lambda store: store.remember(key, learned))

    async def on_note(self, key: ConversationKey, more: int) -> Answers:
        """A compaction begins: it reads what leaves the window next."""
        known = await self.known(key)
        start = known.memories[-1].covers_to if known.memories else 0
        covers_to = min(known.turn_count, start + more)
        self.noted[key] = await self.learned(key, back=covers_to - start, covers_to=covers_to)
        return None, None

    async def on_deliver(self, key: ConversationKey) -> Answers:
        """It ends."""
        learned = self.noted.pop(key, None)
        if learned is None:
            return None, None
        return await self.both(lambda store: store.remember(key, learned))

    async def learned(
        self, key: ConversationKey, *, back: int, covers_to: int, late: int = 0, wrong: bytes = b""
    ) -> Learned:
        """What a compaction of the turns as they are now brings."""
        known = await self.known(key)
        start = max(0, covers_to - back)
        made_of = await self.memory.store.read(key, start, covers_to)
        memory = Memory(
            covers_to=max(0, covers_to),
            version=known.memory_version - late + 1,
            summary=f"\u8bb0 {known.memory_version} {covers_to}",
            facts=("f",),
            at=0.5,
        )
        return Learned(
            memory=memory,
            expected_version=known.memory_version - late,
            start=start,
            digests=b"".join(one.digests for one in made_of) + wrong,
        )

    async def on_fork(
        self, key: ConversationKey, until: int | None, meanwhile: tuple[int, tuple[Any, ...]] | None
    ) -> Answers:
        """A copy, with something happening to the conversation on the way; checked against what there was."""
        self.forks += 1
        new = ConversationKey(key.tenant, f"fork {self.forks}")
        before, turns = await self.known(key), await self.memory.store.read(key, 0, 999)
        learned = self.noted.get(key)

        async def forked(side: Side) -> Conversation:
            meddling = None if meanwhile is None else (meanwhile[0], meddle(side, key, learned, meanwhile[1]))
            return await side.fork(key, new, until, meddling)

        answers = await self.both_sides(forked)
        later = await self.memory.store.read(key, 0, 999)
        for side in (self.memory, self.redis):
            copy, copied = await side.store.load(new), await side.store.read(new, 0, 999)
            if isinstance(answers[0], Conversation):
                assert copy == answers[0]
                check_copy(before, (turns, later), copy, copied, until)
            else:
                assert (copy, copied) == (None, ())
        if isinstance(answers[0], Conversation) and len(self.keys) < 2 + _FORKS:
            self.keys.append(new)
        return answers

    async def on_fitting(self, key: ConversationKey, change: Change) -> Answers:
        granted = self.granted.get(key)
        if not granted:
            return None, None
        return await self.committed(key, granted[-1], fitted(change, (await self.known(key)).turn_count))

    async def on_repeat(self, key: ConversationKey) -> Answers:
        return await self.committed(key, *self.last[key]) if key in self.last else (None, None)

    async def on_commit(self, key: ConversationKey, number: int, change: Change) -> Answers:
        lease = self.lease(key, number)
        return await self.committed(key, lease, change) if lease else (None, None)

    async def on_renew(self, key: ConversationKey, number: int) -> Answers:
        lease = self.lease(key, number)
        return await self.both(lambda store: store.renew(key, lease)) if lease else (None, None)

    async def on_release(self, key: ConversationKey, number: int) -> Answers:
        lease = self.lease(key, number)
        return await self.both(lambda store: store.release(key, lease)) if lease else (None, None)

    def lease(self, key: ConversationKey, number: int) -> Lease | None:
        """One that was granted at some time; its holder may long have lost it."""
        granted = self.granted.get(key)
        return granted[-1 - number % len(granted)] if granted else None

    async def committed(self, key: ConversationKey, lease: Lease, change: Change) -> Answers:
        self.last[key] = (lease, change)
        return await self.both(lambda store: store.commit(key, lease, change))


def meddle(side: Side, key: ConversationKey, learned: Learned | None, act: tuple[Any, ...]) -> Act:
    """What happens to a conversation that is being copied; a refusal is as good as a success."""
    name, *arguments = act

    async def deliver() -> object:
        return await side.store.remember(key, learned) if learned else None

    acts: dict[str, Act] = {
        "deliver": deliver,
        "write": lambda: side.write(key, *arguments),
        "erase": lambda: side.store.erase(key),
        "pass": lambda: side.pass_ms(*arguments),
    }

    async def attempt() -> object:
        return await outcome(acts[name]())

    return attempt


def check_copy(
    before: Conversation,
    turns: tuple[tuple[Turn, ...], tuple[Turn, ...]],
    copy: Conversation,
    copied: tuple[Turn, ...],
    until: int | None,
) -> None:
    """A copy shows the memory that the conversation had when the copying began.

    Its turns are those from then, or those from after a turn was replaced on the way, never some of each.
    """
    stop = before.turn_count if until is None else until + 1
    is_whole = stop == before.turn_count
    said = [(memory.covers_to, memory.summary, memory.facts) for memory in copy.memories]
    fit = [one for one in before.memories if 0 < one.covers_to <= stop]
    assert [one.messages for one in copied] in [[one.messages for one in at[:stop]] for at in turns]
    assert [(one.covers_to, one.summary, one.facts) for one in fit][-MEMORIES_KEPT:] == said[-MEMORIES_KEPT:]
    now, then = shown(copy.memories, copy.shows), shown(before.memories, before.shows)
    if is_whole and then is not None and 0 < then.covers_to:
        assert (before.cut, before.shows) == (copy.cut, copy.shows)
        assert now is not None
        assert (then.summary, then.facts) == (now.summary, now.facts)
    # A change that no use case would make may have had the conversation show more than its cut allows.
    if not is_whole and now is not None and now.covers_to != before.shows:
        assert now.covers_to <= copy.cut


async def outcome(call: Awaitable[Any]) -> Any:
    """The answer, or the error as something that can be compared; times to go lose their last digits."""
    try:
        answer = await call
    except (HistoryError, ValueError) as error:
        return type(error), str(error)
    return Busy(answer.position, round(answer.holder_expires_ms, -4)) if isinstance(answer, Busy) else answer


async def everything(store: ConversationStore, key: ConversationKey) -> tuple[Any, ...]:
    """What anybody can see of a conversation; asked at once, as nobody writes meanwhile."""
    conversation, turns, digests = await asyncio.gather(
        store.load(key), store.read(key, 0, 999), store.digests(key)
    )
    branches = range(1, conversation.branches + 1) if conversation else ()
    vectors = await store.vectors(key, 1, 9)
    return conversation, turns, digests, [await store.branch(key, number) for number in branches], vectors
