"""Dialogues in Redis or Valkey: one hash slot per conversation, one script per read-modify-write.

A turn costs two round trips, `begin` and `commit`, whatever the dialogue's length. Every script may be
sent twice without harm: a writer is known by its owner, a commit by its fence, and both are remembered.
Time is the server's, so that gateways with different clocks agree on who holds a lease.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any

from history.book import Book
from history.conversation import SCHEMA_VERSION, Binding, Conversation, ConversationKey, Lease, Stored, Turn
from history.errors import ConversationNotFound, StoreFault, UserErased
from history.known_windows import Known, KnownWindows
from history.limits import LimitRule
from history.meaning import Vectors, VectorSpan
from history.ports import Archived, Begun, Branch, Busy, Change, Claim, Counted, Learned, Missing, Renewal
from history.redis_answers import begun, commit_refused, committed, sha1
from history.redis_census import census, names_like
from history.redis_keys import (
    ALL_TOTALS,
    conversation_keys,
    decode_id,
    encode_id,
    once_key,
    tenant_key,
    user_keys,
)
from history.redis_link import Argument, RedisLink, Script, Unconfirmed, load_script
from history.redis_place import Durability, RedisPlace, parse_place
from history.redis_records import (
    changed_fields,
    decode_branch,
    decode_conversation,
    decode_span,
    decode_stored,
    decode_turn,
    encode_binding,
    encode_branch,
    encode_memory,
    encode_turn,
)
from history.store_rules import (
    COMMITS_REMEMBERED,
    GRAVE_MS,
    MEMORIES_KEPT,
    RATINGS_KEPT,
    TICKET_MS,
    USAGES_REMEMBERED,
    check_claim,
)

_IDLE_S = 1_800.0
"""A window that was not used for so long is forgotten, and what was erased on another replica with it."""
_PRUNE_EVERY_S = 60.0

_ON_CONVERSATIONS = (
    *("begin", "renew", "commit", "release", "leave", "remember", "rebind", "describe", "shed", "restore"),
    *("read", "turns", "load", "branch", "branches", "rate", "ratings", "embed", "vectors", "erase"),
)
_ON_OTHERS = ("register", "bury", "usage")


class RedisStore:
    """A `ConversationStore` over a server, a cluster, or a master with its sentinels.

    `ttl_ms`: how long a conversation is kept after its last turn, None for ever. `pool_size`: how many
    calls may be under way at once, the rest wait. `timeout_s`: how long one call may take in all.
    `durability`: what must be true before a turn counts as stored. `limits`: when a conversation is full.
    `window_bytes`: how much of windows is kept here too, so that only what is new has to be read.
    """

    def __init__(  # noqa: PLR0913 - each is a setting
        self,
        place: RedisPlace | str,
        *,
        ttl_ms: int | None = None,
        pool_size: int = 64,
        timeout_s: float = 2.0,
        durability: Durability | None = None,
        limits: LimitRule | None = None,
        window_bytes: int = 128 * 1024 * 1024,
    ) -> None:
        if ttl_ms is not None and ttl_ms <= 0:
            raise ValueError(f"ttl_ms is a positive number of milliseconds or None, not {ttl_ms}")
        self._ttl_ms = ttl_ms or 0
        self._limits = limits or LimitRule()
        self._book = Book()
        self._place = parse_place(place) if isinstance(place, str) else place
        self._timeout_s = timeout_s
        self._link = RedisLink(self._place, size=pool_size, timeout_s=timeout_s, durability=durability)
        self._windows = KnownWindows(max_bytes=window_bytes, idle_s=_IDLE_S, clock=time.monotonic)
        self._pruning: asyncio.TimerHandle | None = None
        self._scripts: dict[str, Script] = {
            **{name: load_script(name, prelude="slot") for name in _ON_CONVERSATIONS},
            **{name: load_script(name) for name in _ON_OTHERS},
        }

    @property
    def round_trips(self) -> int:
        """How many commands were sent on conversations' slots so far."""
        return sum(self._link.sent[name] for name in _ON_CONVERSATIONS)

    async def begin(self, key: ConversationKey, claim: Claim) -> Begun | Busy | Missing:
        """Take the lease and read the window, or a place in the queue, in one round trip."""
        check_claim(claim)
        known = self._windows.get(key)
        try:
            status, *rest = await self._run(
                "begin",
                conversation_keys(key),
                *(encode_id(claim.owner), claim.lease_ms, claim.queue_limit),
                *(int(claim.must_exist), int(claim.interrupt), claim.digest_turns),
                *(TICKET_MS, GRAVE_MS),
                *(known.version.commit, known.conversation.turn_count, known.version.memory),
            )
        except Unconfirmed:
            # The caller goes away without knowing that it holds a lease, which the next one would wait for.
            await self.leave(key, claim.owner)
            raise
        if status == b"begun":
            held, now_known = begun(claim, known, rest)
            self._know(key, now_known)
            return held
        if status == b"busy":
            return Busy(position=rest[0], holder_expires_ms=rest[1])
        self._windows.drop(key)
        return Missing()

    async def renew(self, key: ConversationKey, lease: Lease) -> Renewal:
        """Extend the lease by its duration from now."""
        keys = conversation_keys(key)
        status, *rest = await self._run(
            "renew",
            (keys.meta, keys.turns, keys.digests, keys.branches, keys.ratings, keys.vectors),
            *(encode_id(lease.owner), lease.fence, lease.duration_ms),
        )
        return Renewal(held=True, interrupted=rest[0] == 1) if status == b"held" else Renewal(held=False)

    async def commit(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        """Write the change and free the lease. Raises as `ConversationStore.commit` does."""
        keys, known = conversation_keys(key), self._windows.get(key)
        fields = changed_fields(change)
        status, *rest = await self._run(
            "commit",
            (keys.meta, keys.turns, keys.digests, keys.branches, keys.ratings, keys.vectors),
            *(encode_id(lease.owner), lease.fence, self._ttl_ms, COMMITS_REMEMBERED),
            *(change.keep, int(change.save_branch), "" if change.cut is None else change.cut),
            *(int(change.new_epoch), change.at, len(fields) // 2, len(change.append)),
            *(change.into_branch, len(change.branches)),
            encode_memory(change.shown) if change.shown is not None else b"",
            *(self._limits.conversation_turns, self._limits.conversation_bytes),
            *known.version,
            *fields,
            *(encode_turn(turn) for turn in change.append),
            *(turn.digests for turn in change.append),
            *(part for branch in change.branches for part in (branch[0], encode_branch(branch))),
        )
        if status == b"done":
            more_turns, more_bytes, *answer = rest
            self._book.note(key.tenant, more_turns, more_bytes)
            known = committed(change, known, answer)
            self._know(key, known)
            return known.conversation
        raise commit_refused(status, rest, change, self._limits)

    async def remember(self, key: ConversationKey, learned: Learned) -> bool:
        """Add a version of the memory; False if it no longer fits."""
        keys = conversation_keys(key)
        (status,) = await self._run(
            "remember",
            (keys.meta, keys.digests),
            *(learned.expected_version, learned.start, learned.memory.covers_to, sha1(learned.digests)),
            *(encode_memory(learned.memory), MEMORIES_KEPT),
        )
        return bool(status == b"kept")

    async def rebind(self, key: ConversationKey, binding: Binding, *, turn_count: int) -> bool:
        """Say where the KV lies now, unless turns were written meanwhile."""
        meta = conversation_keys(key).meta
        (status,) = await self._run("rebind", (meta,), turn_count, encode_binding(binding))
        return bool(status == b"kept")

    async def describe(self, key: ConversationKey, metadata: bytes) -> bool:
        """Replace what the client noted about a conversation; False if there is none."""
        (status,) = await self._run("describe", (conversation_keys(key).meta,), metadata)
        return bool(status == b"ok")

    async def release(self, key: ConversationKey, lease: Lease) -> None:
        """Free the lease without writing; no error if it is no longer ours."""
        keys = conversation_keys(key)
        await self._run("release", (keys.meta,), encode_id(lease.owner), lease.fence)

    async def leave(self, key: ConversationKey, owner: str) -> None:
        """Give up the ticket in the queue, and the lease if it was just granted to `owner`."""
        keys = conversation_keys(key)
        await self._run("leave", (keys.meta, keys.wait), encode_id(owner))

    async def digests(
        self, key: ConversationKey, start: int = 0, stop: int | None = None
    ) -> tuple[bytes, ...]:
        """The digests of turns `start` to `stop`, oldest first."""
        keys = conversation_keys(key)
        if stop is not None and stop <= start:
            return ()
        last = -1 if stop is None else stop - 1
        _, digests = await self._run("read", (keys.meta, keys.digests), start, last)
        return tuple(digests)

    async def read(self, key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        """Turns `start` (inclusive) to `stop` (exclusive) of the active branch."""
        return (await self.kept(key, start, stop))[1]

    async def kept(self, key: ConversationKey, start: int, stop: int) -> tuple[int, tuple[Turn, ...]]:
        """The same, without those in the archive; first, how many of the dialogue's turns are there."""
        keys = conversation_keys(key)
        _, base, turns = await self._run("turns", (keys.meta, keys.turns), max(0, start), stop - 1)
        return base, tuple(decode_turn(turn) for turn in turns)

    async def shed(self, key: ConversationKey, archived: Archived) -> bool:
        """Drop turns that are in the archive now, if they are still those."""
        keys = conversation_keys(key)
        (status,) = await self._run(
            "shed",
            (keys.meta, keys.turns, keys.digests),
            *(archived.start, archived.stop, sha1(archived.digests)),
        )
        return bool(status == b"shed")

    async def restore(self, key: ConversationKey, start: int, turns: Sequence[Turn]) -> bool:
        """Put archived turns back."""
        keys = conversation_keys(key)
        records = (encode_turn(turn) for turn in turns)
        (status,) = await self._run("restore", (keys.meta, keys.turns), start, start + len(turns), *records)
        return bool(status == b"restored")

    async def load(self, key: ConversationKey) -> Conversation | None:
        """The conversation without its turns; None if there is none."""
        status, *rest = await self._run("load", (conversation_keys(key).meta,))
        return decode_conversation(rest[0]) if status == b"ok" else None

    async def branch(self, key: ConversationKey, number: int) -> Branch:
        """A saved branch. Raises `ConversationNotFound` if there is none of this number."""
        keys = conversation_keys(key)
        status, *rest = await self._run("branch", (keys.meta, keys.branches), number)
        if status != b"ok":
            raise ConversationNotFound(f"this conversation has no branch {number}")
        return decode_branch(rest[0])

    async def branches_at(self, key: ConversationKey, index: int) -> tuple[int, ...]:
        """The numbers of the branches that left at this turn."""
        keys = conversation_keys(key)
        _, listed = await self._run("branches", (keys.meta, keys.branches), index)
        return tuple(int(number) for number in listed.split(b",") if number)

    async def rate(self, key: ConversationKey, item: str, rating: bytes) -> bool:
        """Keep what somebody thinks of an item. Raises `ConversationNotFound`."""
        keys = conversation_keys(key)
        (status,) = await self._run("rate", (keys.meta, keys.ratings), encode_id(item), rating, RATINGS_KEPT)
        if status == b"missing":
            raise ConversationNotFound(key.id)
        return bool(status == b"ok")

    async def ratings(self, key: ConversationKey, items: Sequence[str]) -> tuple[bytes, ...]:
        """What was kept of each of these items, empty for nothing."""
        if not items:
            return ()
        keys = conversation_keys(key)
        names = (encode_id(item) for item in items)
        _, ratings = await self._run("ratings", (keys.meta, keys.ratings), *names)
        return tuple(rating or b"" for rating in ratings)

    async def embed(self, key: ConversationKey, vectors: Vectors, *, most: int) -> bool:
        """Keep the vectors of archived turns; False if the turns are others now."""
        keys = conversation_keys(key)
        of = (vectors.created_at, vectors.past, vectors.form, vectors.start, most)
        (status,) = await self._run("embed", (keys.meta, keys.vectors), *of, *vectors.records)
        return bool(status == b"kept")

    async def vectors(
        self, key: ConversationKey, start: int = 0, stop: int = 0
    ) -> tuple[VectorSpan, tuple[bytes, ...]]:
        """Which turns have a vector, and the records of turns `start` to `stop` of them."""
        keys = conversation_keys(key)
        _, head, records = await self._run("vectors", (keys.meta, keys.vectors), start, stop)
        return decode_span(head), tuple(records)

    async def register(self, tenant: str, user: str, key: ConversationKey) -> None:
        """Put the conversation into the user's index. Raises `UserErased` if the user was erased."""
        conversation_keys(key)
        (status,) = await self._link.run(
            self._scripts["register"], user_keys(tenant, user), encode_id(key.id)
        )
        if status != b"ok":
            raise UserErased("this user was erased; nothing new is kept for it today")

    async def unregister(self, tenant: str, user: str, key: ConversationKey) -> None:
        """Take it out of the index again, unless there is such a conversation or one is being begun."""
        index, meta = user_keys(tenant, user), conversation_keys(key).meta
        if not await self._link.command("ZREM", index.conversations, encode_id(key.id)):
            return
        if await self._link.command("EXISTS", meta):
            # Whoever has begun it may have found it in the index: there it has to stay, to be found again.
            await self._link.run(self._scripts["register"], index, encode_id(key.id))

    async def conversations_of(self, tenant: str, user: str) -> tuple[str, ...]:
        """The ids in the user's index, oldest first."""
        ids = await self._link.command("ZRANGE", user_keys(tenant, user).conversations, 0, -1)
        return tuple(decode_id(conversation_id) for conversation_id in ids)

    async def erase(self, key: ConversationKey) -> None:
        """Delete a conversation, also from its user's index, and fence its writers."""
        try:
            _, user, was = await self._run("erase", conversation_keys(key))
        finally:
            self._windows.drop(key)
        stored = decode_stored(was)
        self._book.note(key.tenant, -stored.turns, -stored.bytes)
        if user:
            await self.unregister(key.tenant, decode_id(user), key)

    async def erase_user(self, tenant: str, user: str) -> int:
        """Erase every conversation of a user and leave a tombstone; returns how many there were.

        The index goes last: an erasure that broke off is finished by asking again.
        """
        keys = user_keys(tenant, user)
        ids = await self._link.run(self._scripts["bury"], keys, GRAVE_MS)
        for conversation_id in ids:
            await self.erase(ConversationKey(tenant, decode_id(conversation_id)))
        await self._link.command("UNLINK", keys.conversations)
        return len(ids)

    async def usage(self, tenants: Collection[str]) -> Mapping[str, Stored]:
        """Tell the totals what was written and erased; these tenants' totals, and those that were told."""
        totals: dict[str, Stored] = {}
        grown = dict(self._book.take())
        try:
            for tenant in {*tenants, *grown}:
                more = grown.get(tenant)
                name = secrets.token_hex(8) if more else ""
                arguments = (name, USAGES_REMEMBERED, *((more.turns, more.bytes) if more else (0, 0)))
                answer = await self._link.run(self._scripts["usage"], (tenant_key(tenant),), *arguments)
                totals[tenant] = Stored(*map(int, answer))
                grown.pop(tenant, None)
        finally:
            self._book.put_back(grown)
        return totals

    def census(self) -> AsyncGenerator[Sequence[Counted], None]:
        """Every conversation there is, some at a time."""
        return census(self._place, timeout_s=self._timeout_s)

    async def recounted(self, totals: Mapping[str, Stored]) -> None:
        """These are the totals of all tenants; one that is not among them has nothing."""
        known = {tenant_key(tenant): total for tenant, total in totals.items()}
        for name in await names_like(self._place, ALL_TOTALS, timeout_s=self._timeout_s):
            known.setdefault(name, Stored())
        for name, total in known.items():
            await self._link.command("HSET", name, "turns", total.turns, "bytes", total.bytes)

    async def is_first(self, what: str, *, within_ms: int) -> bool:
        """Whether no process has asked this for so long."""
        return await self._link.command("SET", once_key(what), "", "NX", "PX", within_ms) is not None

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless the store answers."""
        await self._link.command("PING")

    async def close(self) -> None:
        """Give the connections back."""
        if self._pruning is not None:
            self._pruning.cancel()
        await self._link.close()

    def _know(self, key: ConversationKey, known: Known) -> None:
        """Keep a window in mind, and look now and then whether it has to go, also where nobody comes."""
        self._windows.put(key, known)
        if self._pruning is None:
            self._pruning = asyncio.get_running_loop().call_later(_PRUNE_EVERY_S, self._prune)

    def _prune(self) -> None:
        self._windows.prune()
        again = asyncio.get_running_loop().call_later
        self._pruning = again(_PRUNE_EVERY_S, self._prune) if self._windows else None

    async def _run(self, name: str, keys: tuple[bytes, ...], *arguments: Argument) -> list[Any]:
        answer: list[Any] = await self._link.run(self._scripts[name], keys, SCHEMA_VERSION, *arguments)
        if answer[0] == b"newer":
            raise StoreFault(
                f"this conversation has schema version {int(answer[1])} and this program knows "
                f"{SCHEMA_VERSION}: upgrade every gateway before one of the new ones writes"
            )
        return answer
