"""Dialogues in the memory of one process: for trying things out and for tests.

It keeps the same promises as the Redis store, minus survival. Nothing awaits inside a method, so each
one is atomic on its event loop. Without a `ttl_ms` nothing is ever dropped: it is as large as what was said
to it.
"""

import math
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from itertools import islice

from msgspec.structs import replace

from history.conversation import Binding, Conversation, ConversationKey, Lease, Stored, Turn
from history.errors import ConversationNotFound, LeaseLost, TurnsArchived, UserErased
from history.limits import LimitRule, check_growth
from history.meaning import NO_VECTORS, Vectors, VectorSpan
from history.memory_slot import Slot
from history.ports import Archived, Begun, Branch, Busy, Change, Claim, Counted, Learned, Missing, Renewal
from history.store_rules import (
    COMMITS_REMEMBERED,
    GRAVE_MS,
    RATINGS_KEPT,
    TICKET_MS,
    branch_refused,
    check_claim,
    check_key,
    check_user,
    is_gone,
    is_stale,
    moved_cut,
    with_newest,
)

_LOOKED_AT = 4
"""How many conversations a commit looks at, whether they have expired."""


def _monotonic_ms() -> float:
    return time.monotonic() * 1_000


class MemoryStore:
    """A `ConversationStore` without a server. `now_ms` is its clock; only differences count.

    `ttl_ms`: how long a conversation is kept after its last turn, None for ever. `limits`: when one is full.
    """

    def __init__(
        self,
        *,
        ttl_ms: int | None = None,
        limits: LimitRule | None = None,
        now_ms: Callable[[], float] = _monotonic_ms,
    ) -> None:
        if ttl_ms is not None and ttl_ms <= 0:
            raise ValueError(f"ttl_ms is a positive number of milliseconds or None, not {ttl_ms}")
        self._ttl_ms = math.inf if ttl_ms is None else ttl_ms
        self._limits = limits or LimitRule()
        self._now_ms = now_ms
        self._totals: dict[str, Stored] = {}
        self._once: dict[str, float] = {}
        self._slots: dict[ConversationKey, Slot] = {}
        self._index: dict[tuple[str, str], dict[str, None]] = {}
        self._tombstones: dict[tuple[str, str], float] = {}

    async def begin(self, key: ConversationKey, claim: Claim) -> Begun | Busy | Missing:
        """Take the lease and read the window, or a place in the queue."""
        slot = self._slot(key)
        check_claim(claim)
        if claim.must_exist and (slot is None or slot.conversation is None):
            return Missing()
        slot = slot or self._slots.setdefault(key, Slot())
        now = self._now_ms()
        if slot.owner != claim.owner:
            busy = self._place(slot, claim, now)
            if busy is not None:
                return busy
            slot.seen.pop(claim.owner, None)
            slot.fence += 1
        slot.owner, slot.expires = claim.owner, now + claim.lease_ms
        if slot.conversation is None:
            slot.dies_at = now + max(GRAVE_MS, 2 * claim.lease_ms)
        slot.outlive(now, 2 * claim.lease_ms)
        return slot.begun(claim)

    def _place(self, slot: Slot, claim: Claim, now: float) -> Busy | None:
        """The claim's place in the queue; None if it is its turn."""
        for owner in [owner for owner, seen in slot.seen.items() if seen < now - TICKET_MS]:
            del slot.seen[owner]
        waiting = list(slot.seen)
        ours = claim.owner in slot.seen
        ahead = waiting.index(claim.owner) if ours else len(waiting)
        free = slot.expires <= now
        if free and not ahead:
            return None
        expires_ms = max(0, round(slot.expires - now))
        if not ours and len(waiting) >= claim.queue_limit:
            return Busy(position=-1, holder_expires_ms=expires_ms)
        slot.seen[claim.owner] = now
        if claim.interrupt and not free:
            slot.interrupted_fence = slot.fence
        return Busy(position=ahead, holder_expires_ms=expires_ms)

    async def renew(self, key: ConversationKey, lease: Lease) -> Renewal:
        """Extend the lease by its duration from now."""
        slot = self._slot(key)
        if slot is None or not slot.holds(lease):
            return Renewal(held=False)
        now = self._now_ms()
        slot.expires = now + lease.duration_ms
        slot.outlive(now, 2 * lease.duration_ms)
        return Renewal(held=True, interrupted=slot.interrupted_fence == lease.fence)

    async def commit(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        """Write the change and free the lease. Raises as `ConversationStore.commit` does."""
        slot = self._slot(key)
        if slot is None or not slot.fence:
            raise is_gone()
        if (lease.owner, lease.fence) in slot.done and slot.conversation is not None:
            return slot.conversation
        if not slot.holds(lease):
            raise LeaseLost("another writer took the conversation over; send the message again")
        before = slot.conversation or Conversation(created_at=change.at)
        cut = moved_cut(before, change)
        replaces = change.save_branch and change.keep < before.turn_count
        if replaces and change.into_branch and not slot.has_branch(change.into_branch, change.keep):
            raise branch_refused(change.into_branch)
        if change.keep < before.base or (change.cut is not None and change.cut < before.base):
            raise TurnsArchived(before.base)
        stored = slot.grown(before, change)
        check_growth(before.stored, stored, self._limits)
        after = slot.change(before, change, cut=cut, stored=stored)
        self._count(key.tenant, after.stored, before.stored)
        slot.done = (*slot.done, (lease.owner, lease.fence))[-COMMITS_REMEMBERED:]
        slot.free()
        slot.dies_at = self._now_ms() + self._ttl_ms
        self._tidy()
        return after

    async def remember(self, key: ConversationKey, learned: Learned) -> bool:
        """Add a version of the memory; False if it no longer fits."""
        slot = self._slot(key)
        if slot is None or slot.conversation is None:
            return False
        before = slot.conversation
        if is_stale(before, learned, slot.digests[learned.start : learned.memory.covers_to]):
            return False
        slot.conversation = replace(
            before,
            memories=with_newest(before, learned.memory),
            memory_version=before.memory_version + 1,
        )
        return True

    async def rebind(self, key: ConversationKey, binding: Binding, *, turn_count: int) -> bool:
        """Say where the KV lies now, unless turns were written meanwhile."""
        slot = self._slot(key)
        if slot is None or slot.conversation is None or slot.conversation.turn_count != turn_count:
            return False
        slot.conversation = replace(slot.conversation, binding=binding)
        return True

    async def describe(self, key: ConversationKey, metadata: bytes) -> bool:
        """Replace what the client noted about a conversation; False if there is none."""
        slot = self._slot(key)
        if slot is None or slot.conversation is None:
            return False
        slot.conversation = replace(slot.conversation, metadata=metadata)
        return True

    async def release(self, key: ConversationKey, lease: Lease) -> None:
        """Free the lease without writing; no error if it is no longer ours."""
        slot = self._slot(key)
        if slot is not None and slot.holds(lease):
            slot.free()

    async def leave(self, key: ConversationKey, owner: str) -> None:
        """Give up the ticket in the queue, and the lease if it was just granted to `owner`."""
        slot = self._slot(key)
        if slot is None:
            return
        slot.seen.pop(owner, None)
        if slot.owner == owner:
            slot.free()

    async def digests(
        self, key: ConversationKey, start: int = 0, stop: int | None = None
    ) -> tuple[bytes, ...]:
        """The digests of turns `start` to `stop`, oldest first."""
        slot = self._slot(key)
        return tuple(slot.digests[start:stop]) if slot else ()

    async def read(self, key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        """Turns `start` (inclusive) to `stop` (exclusive) of the active branch."""
        return (await self.kept(key, start, stop))[1]

    async def kept(self, key: ConversationKey, start: int, stop: int) -> tuple[int, tuple[Turn, ...]]:
        """The same, without those in the archive; first, how many of the dialogue's turns are there."""
        slot = self._slot(key)
        if slot is None:
            return 0, ()
        return slot.base, tuple(slot.turns[max(0, start - slot.base) : max(0, stop - slot.base)])

    async def shed(self, key: ConversationKey, archived: Archived) -> bool:
        """Drop turns that are in the archive now."""
        slot = self._slot(key)
        if slot is None or slot.conversation is None:
            return False
        before = slot.conversation
        digests = b"".join(slot.digests[archived.start : archived.stop])
        fits = before.base == archived.start < archived.stop <= before.cut
        if not fits or digests != archived.digests:
            return False
        del slot.turns[: archived.stop - archived.start]
        slot.conversation = replace(before, base=archived.stop)
        return True

    async def restore(self, key: ConversationKey, start: int, turns: Sequence[Turn]) -> bool:
        """Put archived turns back."""
        slot = self._slot(key)
        if slot is None or slot.conversation is None or slot.base != start + len(turns) or not turns:
            return False
        slot.turns[:0] = turns
        slot.conversation = replace(slot.conversation, base=start)
        return True

    async def load(self, key: ConversationKey) -> Conversation | None:
        """The conversation without its turns; None if there is none."""
        slot = self._slot(key)
        return slot.conversation if slot else None

    async def branch(self, key: ConversationKey, number: int) -> Branch:
        """A saved branch. Raises `ConversationNotFound` if there is none of this number."""
        slot = self._slot(key)
        if slot is None or not 1 <= number <= len(slot.branches):
            raise ConversationNotFound(f"this conversation has no branch {number}")
        return slot.branches[number - 1]

    async def branches_at(self, key: ConversationKey, index: int) -> tuple[int, ...]:
        """The numbers of the branches that left at this turn."""
        slot = self._slot(key)
        branches = slot.branches if slot else []
        return tuple(number for number, (left_at, _) in enumerate(branches, start=1) if left_at == index)

    async def rate(self, key: ConversationKey, item: str, rating: bytes) -> bool:
        """Keep what somebody thinks of an item. Raises `ConversationNotFound`."""
        slot = self._slot(key)
        if slot is None or slot.conversation is None:
            raise ConversationNotFound(key.id)
        if not rating:
            slot.ratings.pop(item, None)
        elif item in slot.ratings or len(slot.ratings) < RATINGS_KEPT:
            slot.ratings[item] = rating
        else:
            return False
        return True

    async def ratings(self, key: ConversationKey, items: Sequence[str]) -> tuple[bytes, ...]:
        """What was kept of each of these items, empty for nothing."""
        slot = self._slot(key)
        return tuple(slot.ratings.get(item, b"") if slot else b"" for item in items)

    async def embed(self, key: ConversationKey, vectors: Vectors, *, most: int) -> bool:
        """Keep the vectors of archived turns; False if the turns are others now."""
        slot = self._slot(key)
        return slot is not None and slot.embed(vectors, most=most)

    async def vectors(
        self, key: ConversationKey, start: int = 0, stop: int = 0
    ) -> tuple[VectorSpan, tuple[bytes, ...]]:
        """Which turns have a vector, and the records of turns `start` to `stop` of them."""
        slot = self._slot(key)
        return slot.embedded(start, stop) if slot else (NO_VECTORS, ())

    async def register(self, tenant: str, user: str, key: ConversationKey) -> None:
        """Put the conversation into the user's index. Raises `UserErased` if the user was erased."""
        check_user(tenant, user)
        check_key(key)
        if self._is_buried(tenant, user):
            raise UserErased("this user was erased; nothing new is kept for it today")
        self._index.setdefault((tenant, user), {})[key.id] = None

    def _is_buried(self, tenant: str, user: str) -> bool:
        until = self._tombstones.get((tenant, user))
        if until is None or until > self._now_ms():
            return until is not None
        del self._tombstones[tenant, user]
        return False

    async def unregister(self, tenant: str, user: str, key: ConversationKey) -> None:
        """Take it out of the index again, unless there is such a conversation or one is being begun."""
        check_user(tenant, user)
        slot, listed = self._slot(key), self._index.get((tenant, user), {})
        if key.id not in listed:
            return
        del listed[key.id]
        if slot is not None and slot.fence and not self._is_buried(tenant, user):
            listed[key.id] = None

    async def conversations_of(self, tenant: str, user: str) -> tuple[str, ...]:
        """The ids in the user's index, oldest first."""
        check_user(tenant, user)
        return tuple(self._index.get((tenant, user), ()))

    async def erase(self, key: ConversationKey) -> None:
        """Delete a conversation, also from its user's index, and fence its writers."""
        slot = self._slot(key)
        if slot is None:
            return
        user = slot.conversation.user if slot.conversation else ""
        self._index.get((key.tenant, user), {}).pop(key.id, None)
        self._drop(key)

    async def erase_user(self, tenant: str, user: str) -> int:
        """Erase every conversation of a user and leave a tombstone; returns how many there were."""
        check_user(tenant, user)
        self._tombstones[tenant, user] = self._now_ms() + GRAVE_MS
        ids = self._index.pop((tenant, user), {})
        for conversation_id in ids:
            await self.erase(ConversationKey(tenant, conversation_id))
        return len(ids)

    async def usage(self, tenants: Collection[str]) -> Mapping[str, Stored]:
        """These tenants' totals, which are always right here."""
        return {tenant: self._totals.get(tenant, Stored()) for tenant in tenants}

    async def census(self) -> AsyncGenerator[Sequence[Counted], None]:
        """Every conversation there is."""
        there = ((key, self._slot(key)) for key in list(self._slots))
        yield [Counted(key, slot.conversation.stored) for key, slot in there if slot and slot.conversation]

    async def recounted(self, totals: Mapping[str, Stored]) -> None:
        """They are what they were."""

    async def is_first(self, what: str, *, within_ms: int) -> bool:
        """Whether nobody has asked this for so long."""
        if self._once.get(what, -math.inf) > self._now_ms():
            return False
        self._once[what] = self._now_ms() + within_ms
        return True

    async def ping(self) -> None:
        """Memory always answers."""

    async def close(self) -> None:
        """There is nothing to give back."""

    def _slot(self, key: ConversationKey) -> Slot | None:
        """What is under a key, unless its time has come; only the line of those who wait survives that."""
        check_key(key)
        slot = self._slots.get(key)
        if slot is None or slot.dies_at > self._now_ms():
            return slot
        self._drop(key)
        if not slot.seen:
            return None
        self._slots[key] = Slot(seen=slot.seen, dies_at=self._now_ms() + TICKET_MS)
        return self._slots[key]

    def _drop(self, key: ConversationKey) -> None:
        slot = self._slots.pop(key)
        if slot.conversation is not None:
            self._count(key.tenant, Stored(), slot.conversation.stored)

    def _count(self, tenant: str, now: Stored, before: Stored) -> None:
        total = self._totals.get(tenant, Stored())
        self._totals[tenant] = Stored(
            turns=total.turns + now.turns - before.turns, bytes=total.bytes + now.bytes - before.bytes
        )

    def _tidy(self) -> None:
        """Drop what nobody will ask for again: every commit looks at a few, round and round."""
        for key in list(islice(self._slots, _LOOKED_AT)):
            if self._slot(key) is not None:
                self._slots[key] = self._slots.pop(key)
