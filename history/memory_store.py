"""Dialogues in the memory of one process: for trying things out and for tests.

It keeps the same promises as the Redis store, minus survival. Nothing awaits inside a method, so each
one is atomic on its event loop. Nothing is ever dropped: it is as large as what was said to it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from history.conversation import Binding, Conversation, ConversationKey, Lease, Turn
from history.errors import ConversationErased, ConversationNotFound, LeaseLost, TurnsArchived
from history.ports import Archived, Begun, Branch, Busy, Change, Claim, Learned, Missing, Renewal
from history.store_rules import (
    COMMITS_REMEMBERED,
    GRAVE_MS,
    MEMORIES_KEPT,
    RATINGS_KEPT,
    TICKET_MS,
    branch_refused,
    check_claim,
    check_key,
    check_user,
    is_stale,
    kept_memories,
    marked,
    moved_cut,
)


def _monotonic_ms() -> float:
    return time.monotonic() * 1_000


@dataclass(slots=True)
class _Kept:
    """Everything under one key. `conversation` is None until the first commit."""

    conversation: Conversation | None = None
    turns: list[Turn] = field(default_factory=list)
    """From `base` on."""
    digests: list[bytes] = field(default_factory=list)
    """Of all turns."""
    branches: list[Branch] = field(default_factory=list)
    ratings: dict[str, bytes] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    """The queue: when each owner last asked, in order of arrival."""
    owner: str = ""
    fence: int = 0
    expires: float = 0.0
    interrupted_fence: int = 0
    done: tuple[tuple[str, int], ...] = ()
    """The newest commits, by owner and fence: behind an erasure, fences begin anew and owners do not."""

    @property
    def base(self) -> int:
        return self.conversation.base if self.conversation else 0

    def holds(self, lease: Lease) -> bool:
        return self.owner == lease.owner and self.fence == lease.fence

    def has_branch(self, number: int, index: int) -> bool:
        """Whether there is such a branch, and it left at this turn."""
        return 1 <= number <= len(self.branches) and self.branches[number - 1][0] == index

    def free(self) -> None:
        self.owner, self.expires = "", 0.0


class MemoryStore:
    """A `ConversationStore` without a server. `now_ms` is its clock; only differences count."""

    def __init__(self, *, now_ms: Callable[[], float] = _monotonic_ms) -> None:
        self._now_ms = now_ms
        self._kept: dict[ConversationKey, _Kept] = {}
        self._index: dict[tuple[str, str], dict[str, None]] = {}
        self._tombstones: dict[tuple[str, str], float] = {}

    async def begin(self, key: ConversationKey, claim: Claim) -> Begun | Busy | Missing:
        """Take the lease and read the window, or a place in the queue."""
        check_key(key)
        check_claim(claim)
        kept = self._kept.get(key)
        if claim.must_exist and (kept is None or kept.conversation is None):
            return Missing()
        kept = kept or self._kept.setdefault(key, _Kept())
        now = self._now_ms()
        if kept.owner != claim.owner:
            busy = self._place(kept, claim, now)
            if busy is not None:
                return busy
            kept.seen.pop(claim.owner, None)
            kept.fence += 1
        kept.owner, kept.expires = claim.owner, now + claim.lease_ms
        return _begun(kept, claim)

    def _place(self, kept: _Kept, claim: Claim, now: float) -> Busy | None:
        """The claim's place in the queue; None if it is its turn."""
        for owner in [owner for owner, seen in kept.seen.items() if seen < now - TICKET_MS]:
            del kept.seen[owner]
        waiting = list(kept.seen)
        ours = claim.owner in kept.seen
        ahead = waiting.index(claim.owner) if ours else len(waiting)
        free = kept.expires <= now
        if free and not ahead:
            return None
        expires_ms = max(0, round(kept.expires - now))
        if not ours and len(waiting) >= claim.queue_limit:
            return Busy(position=-1, holder_expires_ms=expires_ms)
        kept.seen[claim.owner] = now
        if claim.interrupt and not free:
            kept.interrupted_fence = kept.fence
        return Busy(position=ahead, holder_expires_ms=expires_ms)

    async def renew(self, key: ConversationKey, lease: Lease) -> Renewal:
        """Extend the lease by its duration from now."""
        kept = self._kept.get(key)
        if kept is None or not kept.holds(lease):
            return Renewal(held=False)
        kept.expires = self._now_ms() + lease.duration_ms
        return Renewal(held=True, interrupted=kept.interrupted_fence == lease.fence)

    async def commit(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        """Write the change and free the lease. Raises `LeaseLost`, `ConversationErased`, `ValueError`."""
        kept = self._kept.get(key)
        if kept is None or not kept.fence:
            raise ConversationErased("the conversation was erased while its turn was being written")
        if (lease.owner, lease.fence) in kept.done and kept.conversation is not None:
            return kept.conversation
        if not kept.holds(lease):
            raise LeaseLost("another writer took the conversation over; send the message again")
        before = kept.conversation or Conversation(created_at=change.at)
        cut = moved_cut(before, change)
        replaces = change.save_branch and change.keep < before.turn_count
        if replaces and change.into_branch and not kept.has_branch(change.into_branch, change.keep):
            raise branch_refused(change.into_branch)
        if change.keep < before.base or (change.cut is not None and change.cut < before.base):
            raise TurnsArchived(before.base)
        if replaces:
            replaced = (change.keep, tuple(kept.turns[change.keep - before.base :]))
            at = change.into_branch - 1 if change.into_branch else len(kept.branches)
            kept.branches[at : at + 1] = [replaced]
        kept.branches += change.branches
        kept.turns[change.keep - before.base :] = change.append
        kept.digests[change.keep :] = [turn.digests for turn in change.append]
        kept.conversation = _changed(before, change, cut, len(kept.digests), len(kept.branches))
        kept.done = (*kept.done, (lease.owner, lease.fence))[-COMMITS_REMEMBERED:]
        kept.free()
        return kept.conversation

    async def remember(self, key: ConversationKey, learned: Learned) -> bool:
        """Add a version of the memory; False if it no longer fits."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None or kept.conversation is None:
            return False
        before = kept.conversation
        if is_stale(before, learned, kept.digests[learned.start : learned.memory.covers_to]):
            return False
        kept.conversation = replace(
            before,
            memories=(*before.memories, learned.memory)[-MEMORIES_KEPT:],
            memory_version=before.memory_version + 1,
        )
        return True

    async def rebind(self, key: ConversationKey, binding: Binding, *, turn_count: int) -> bool:
        """Say where the KV lies now, unless turns were written meanwhile."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None or kept.conversation is None or kept.conversation.turn_count != turn_count:
            return False
        kept.conversation = replace(kept.conversation, binding=binding)
        return True

    async def describe(self, key: ConversationKey, metadata: bytes) -> bool:
        """Replace what the client noted about a conversation; False if there is none."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None or kept.conversation is None:
            return False
        kept.conversation = replace(kept.conversation, metadata=metadata)
        return True

    async def release(self, key: ConversationKey, lease: Lease) -> None:
        """Free the lease without writing; no error if it is no longer ours."""
        kept = self._kept.get(key)
        if kept is not None and kept.holds(lease):
            kept.free()

    async def leave(self, key: ConversationKey, owner: str) -> None:
        """Give up the ticket in the queue, and the lease if it was just granted to `owner`."""
        kept = self._kept.get(key)
        if kept is None:
            return
        kept.seen.pop(owner, None)
        if kept.owner == owner:
            kept.free()

    async def digests(
        self, key: ConversationKey, start: int = 0, stop: int | None = None
    ) -> tuple[bytes, ...]:
        """The digests of turns `start` to `stop`, oldest first."""
        check_key(key)
        kept = self._kept.get(key)
        return tuple(kept.digests[start:stop]) if kept else ()

    async def read(self, key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        """Turns `start` (inclusive) to `stop` (exclusive) of the active branch."""
        return (await self.kept(key, start, stop))[1]

    async def kept(self, key: ConversationKey, start: int, stop: int) -> tuple[int, tuple[Turn, ...]]:
        """The same, without those in the archive; first, how many of the dialogue's turns are there."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None:
            return 0, ()
        return kept.base, tuple(kept.turns[max(0, start - kept.base) : max(0, stop - kept.base)])

    async def shed(self, key: ConversationKey, archived: Archived) -> bool:
        """Drop turns that are in the archive now."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None or kept.conversation is None:
            return False
        before = kept.conversation
        digests = b"".join(kept.digests[archived.start : archived.stop])
        fits = before.base == archived.start < archived.stop <= before.cut
        if not fits or digests != archived.digests:
            return False
        del kept.turns[: archived.stop - archived.start]
        kept.conversation = replace(before, base=archived.stop)
        return True

    async def restore(self, key: ConversationKey, start: int, turns: Sequence[Turn]) -> bool:
        """Put archived turns back."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None or kept.conversation is None or kept.base != start + len(turns) or not turns:
            return False
        kept.turns[:0] = turns
        kept.conversation = replace(kept.conversation, base=start)
        return True

    async def load(self, key: ConversationKey) -> Conversation | None:
        """The conversation without its turns; None if there is none."""
        check_key(key)
        kept = self._kept.get(key)
        return kept.conversation if kept else None

    async def branch(self, key: ConversationKey, number: int) -> Branch:
        """A saved branch. Raises `ConversationNotFound` if there is none of this number."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None or not 1 <= number <= len(kept.branches):
            raise ConversationNotFound(f"this conversation has no branch {number}")
        return kept.branches[number - 1]

    async def branches_at(self, key: ConversationKey, index: int) -> tuple[int, ...]:
        """The numbers of the branches that left at this turn."""
        check_key(key)
        kept = self._kept.get(key)
        branches = kept.branches if kept else []
        return tuple(number for number, (left_at, _) in enumerate(branches, start=1) if left_at == index)

    async def rate(self, key: ConversationKey, item: str, rating: bytes) -> bool:
        """Keep what somebody thinks of an item. Raises `ConversationNotFound`."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None or kept.conversation is None:
            raise ConversationNotFound(key.id)
        if not rating:
            kept.ratings.pop(item, None)
        elif item in kept.ratings or len(kept.ratings) < RATINGS_KEPT:
            kept.ratings[item] = rating
        else:
            return False
        return True

    async def ratings(self, key: ConversationKey, items: Sequence[str]) -> tuple[bytes, ...]:
        """What was kept of each of these items, empty for nothing."""
        check_key(key)
        kept = self._kept.get(key)
        return tuple(kept.ratings.get(item, b"") if kept else b"" for item in items)

    async def register(self, tenant: str, user: str, key: ConversationKey) -> None:
        """Put the conversation into the user's index. Raises `ConversationErased` if the user was erased."""
        check_user(tenant, user)
        check_key(key)
        if self._is_buried(tenant, user):
            raise ConversationErased("this user was erased; nothing new is kept for it today")
        self._index.setdefault((tenant, user), {})[key.id] = None

    def _is_buried(self, tenant: str, user: str) -> bool:
        return self._tombstones.get((tenant, user), self._now_ms()) > self._now_ms()

    async def unregister(self, tenant: str, user: str, key: ConversationKey) -> None:
        """Take it out of the index again, unless there is such a conversation or one is being begun."""
        check_user(tenant, user)
        check_key(key)
        kept, listed = self._kept.get(key), self._index.get((tenant, user), {})
        if key.id not in listed:
            return
        del listed[key.id]
        if kept is not None and kept.fence and not self._is_buried(tenant, user):
            listed[key.id] = None

    async def conversations_of(self, tenant: str, user: str) -> tuple[str, ...]:
        """The ids in the user's index, oldest first."""
        check_user(tenant, user)
        return tuple(self._index.get((tenant, user), ()))

    async def erase(self, key: ConversationKey) -> None:
        """Delete a conversation, also from its user's index, and fence its writers."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None:
            return
        user = kept.conversation.user if kept.conversation else ""
        self._index.get((key.tenant, user), {}).pop(key.id, None)
        del self._kept[key]

    async def erase_user(self, tenant: str, user: str) -> int:
        """Erase every conversation of a user and leave a tombstone; returns how many there were."""
        check_user(tenant, user)
        self._tombstones[tenant, user] = self._now_ms() + GRAVE_MS
        ids = self._index.pop((tenant, user), {})
        for conversation_id in ids:
            await self.erase(ConversationKey(tenant, conversation_id))
        return len(ids)

    async def ping(self) -> None:
        """Memory always answers."""

    async def close(self) -> None:
        """There is nothing to give back."""


def _begun(kept: _Kept, claim: Claim) -> Begun:
    conversation = kept.conversation or Conversation()
    newest = kept.digests[-claim.digest_turns :] if claim.digest_turns > 0 else []
    return Begun(
        conversation=conversation,
        turns=tuple(kept.turns[conversation.cut - conversation.base :]),
        lease=Lease(owner=claim.owner, fence=kept.fence, duration_ms=claim.lease_ms),
        is_new=kept.conversation is None,
        digests=tuple(newest),
    )


def _changed(before: Conversation, change: Change, cut: int, turn_count: int, branches: int) -> Conversation:
    memories = kept_memories(before, change)
    return replace(
        before,
        user=before.user if change.user is None else change.user,
        character=before.character if change.character is None else change.character,
        metadata=before.metadata if change.metadata is None else change.metadata,
        persona=before.persona if change.persona is None else change.persona,
        epoch=before.epoch + change.new_epoch,
        turn_count=turn_count,
        cut=cut,
        branches=branches,
        past=marked(before.past, keep=change.keep, cut=cut),
        shows=before.shows if change.shows is None else change.shows,
        memories=memories,
        memory_version=before.memory_version + (memories != before.memories),
        binding=before.binding if change.binding is None else change.binding,
        updated_at=change.at,
    )
