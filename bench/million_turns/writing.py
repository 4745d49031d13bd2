"""Conversations into a store, through the store's own door: first many turns per commit, as imports do.

The last turns are said one by one, each with the commit of a turn. So what a conversation keeps of its newest
commits is what it keeps in life.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from bench.million_turns.population import Outline, cut_covers
from bench.million_turns.talk import Said, text_bytes
from history.conversation import Binding, Conversation, ConversationKey, Memory, Turn
from history.growing import CHUNK_TURNS
from history.ports import Begun, Change, Claim, ConversationStore, Learned
from history.store_rules import COMMITS_REMEMBERED
from history.window import WindowRule, stateless_cut, step

ONE_BY_ONE = COMMITS_REMEMBERED


class Voice(Protocol):
    """What is kept of a conversation beside its turns."""

    def persona(self) -> bytes:
        """The system message."""

    def memory(self, covers_to: int, version: int) -> Memory:
        """A version of the memory."""

    def binding(self) -> Binding:
        """Where the KV lies after a turn."""


@dataclass(frozen=True, slots=True)
class Trips:
    """How long the two round trips of a turn took, in milliseconds."""

    begin_ms: float
    commit_ms: float


@dataclass(frozen=True, slots=True)
class Written:
    """What went into the store."""

    turns: int = 0
    text_bytes: int = 0
    commits: int = 0
    branches: int = 0

    def __add__(self, other: "Written") -> "Written":
        """Both together."""
        return Written(
            self.turns + other.turns,
            self.text_bytes + other.text_bytes,
            self.commits + other.commits,
            self.branches + other.branches,
        )


async def begin(store: ConversationStore, key: ConversationKey, owner: str) -> Begun:
    """The lease and the window."""
    begun = await store.begin(key, Claim(owner=owner, lease_ms=60_000, queue_limit=8))
    if not isinstance(begun, Begun):
        raise TypeError(f"nobody else writes to this conversation, yet: {begun}")
    return begun


async def take_turn(
    store: ConversationStore,
    key: ConversationKey,
    owner: str,
    turn: Turn,
    *,
    voice: Voice,
    rule: WindowRule,
) -> Trips:
    """One turn as the gateway takes it: the window, then the turn with the cut that follows from it."""
    started = time.perf_counter()
    begun = await begin(store, key, owner)
    began = time.perf_counter() - started
    count = begun.conversation.turn_count
    cut = max(begun.conversation.cut, stateless_cut(count + 1, rule))
    change = Change(keep=count, append=(turn,), at=turn.at, cut=cut, binding=voice.binding())
    started = time.perf_counter()
    await store.commit(key, begun.lease, change)
    return Trips(begin_ms=began * 1e3, commit_ms=(time.perf_counter() - started) * 1e3)


async def write(
    store: ConversationStore, outline: Outline, said: Iterable[Said], *, voice: Voice, rule: WindowRule
) -> Written:
    """A whole conversation: `outline.length` turns out of `said`, and a version of the memory per cut."""
    turns, count, written = iter(said), 0, Written()
    digests: list[bytes] = []
    for size in _sizes(outline.length):
        if count + size == outline.length and count:
            await _remember(store, outline, digests, voice=voice, rule=rule)
        chunk = list(islice(turns, size))
        change = _change(outline, count, chunk, voice=voice, rule=rule)
        await _append(store, outline, change)
        count += size
        digests += [one.turn.digests for one in chunk]
        written += Written(
            turns=size,
            text_bytes=sum(text_bytes(one.turn) for one in chunk),
            commits=1,
            branches=len(change.branches),
        )
    return written


def _sizes(length: int) -> Iterator[int]:
    at_once = max(0, length - ONE_BY_ONE)
    yield from (min(CHUNK_TURNS, at_once - first) for first in range(0, at_once, CHUNK_TURNS))
    yield from (1 for _ in range(length - at_once))


def _change(outline: Outline, count: int, chunk: Sequence[Said], *, voice: Voice, rule: WindowRule) -> Change:
    after, is_last = count + len(chunk), count + len(chunk) == outline.length
    covered = cut_covers(outline.length, rule, outline.versions)
    return Change(
        keep=count,
        append=tuple(one.turn for one in chunk),
        at=chunk[-1].turn.at,
        branches=tuple((count + at, (sibling,)) for at, one in enumerate(chunk) for sibling in one.siblings),
        cut=stateless_cut(after, rule),
        shows=covered[-1] if is_last and covered else None,
        persona=None if count else voice.persona(),
        user=None if count else outline.user,
        character=None if count else "char_luna",
        metadata=None if count else b'{"character":"luna"}',
        binding=voice.binding(),
    )


async def _append(store: ConversationStore, outline: Outline, change: Change) -> Conversation:
    begun = await begin(store, outline.key, f"writer-{outline.seed}-{change.keep}")
    if begun.is_new:
        await store.register(outline.key.tenant, outline.user, outline.key)
    return await store.commit(outline.key, begun.lease, change)


async def _remember(
    store: ConversationStore,
    outline: Outline,
    digests: Sequence[bytes],
    *,
    voice: Voice,
    rule: WindowRule,
) -> None:
    for version, covers_to in enumerate(cut_covers(outline.length, rule, outline.versions)):
        start = covers_to - step(rule)
        learned = Learned(
            memory=voice.memory(covers_to, version + 1),
            expected_version=version,
            start=start,
            digests=b"".join(digests[start:covers_to]),
        )
        if not await store.remember(outline.key, learned):
            raise RuntimeError(f"the memory of turns {start} to {covers_to} was not kept")
