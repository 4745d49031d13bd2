"""The door behind which dialogues are kept.

Two implementations pass one contract suite: `memory_store` and `redis_store`. A turn costs two calls:
`begin` reads everything a prompt needs and takes the lease; `commit` writes everything and frees it.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from history.conversation import Binding, Conversation, ConversationKey, Lease, Memory, Stored, Turn
from history.meaning import Vectors, VectorSpan

Branch = tuple[int, tuple[Turn, ...]]
"""Turns that were replaced: the index of the first, and all of them."""


class Claim(msgspec.Struct, frozen=True):
    """What a writer asks for when it begins a turn."""

    owner: str
    """Unique per request; also its ticket in the queue."""
    lease_ms: int
    queue_limit: int
    """How many may wait in all, this one included; 0 refuses at once when busy."""
    must_exist: bool = False
    interrupt: bool = False
    """Ask whoever holds the lease to stop (`renew` tells it)."""
    digest_turns: int = 0
    """How many of the newest turns' digests to return as well, for alignment."""


class Begun(msgspec.Struct, frozen=True):
    """The lease is held. `turns` are those of the window: `conversation.cut` onwards."""

    conversation: Conversation
    turns: tuple[Turn, ...]
    lease: Lease
    is_new: bool
    digests: tuple[bytes, ...] = ()
    """One entry per turn (16 bytes per message), the newest `digest_turns` turns, oldest first."""


class Busy(msgspec.Struct, frozen=True):
    """Somebody else writes. Ask again with the same owner to keep the place in the queue."""

    position: int
    """Tickets ahead of this one; 0 means next. -1: no ticket (queue full or refused)."""
    holder_expires_ms: int


class Missing(msgspec.Struct, frozen=True):
    """`must_exist` was asked for and there is nothing under this id."""


class Change(msgspec.Struct, frozen=True):
    """What a commit writes, all of it or nothing.

    The newest `turn_count - keep` turns are replaced by `append`; with `save_branch` those replaced are
    kept as a branch of their own. Fields left None stay as they are.
    """

    keep: int
    append: tuple[Turn, ...]
    at: float
    save_branch: bool = False
    into_branch: int = 0
    """With `save_branch`: what is replaced takes the place of this branch, which left at the same turn; 0: it
    becomes a new one."""
    branches: tuple[Branch, ...] = ()
    """More branches to be kept, as if they had been replaced before."""
    cut: int | None = None
    shows: int | None = None
    grows_to: int | None = None
    shown: Memory | None = None
    """The version that a branch's prompt shows: it stays, also if newer ones pushed it out meanwhile."""
    persona: bytes | None = None
    new_epoch: bool = False
    user: str | None = None
    character: str | None = None
    metadata: bytes | None = None
    binding: Binding | None = None


class Learned(msgspec.Struct, frozen=True):
    """A new version of the memory, and of what it was made."""

    memory: Memory
    expected_version: int
    """`Conversation.memory_version` when it was begun."""
    start: int
    """The first turn it was made of; those before were in the version before."""
    digests: bytes
    """The digests of turns `start` to `memory.covers_to`, joined: what it says must still be so."""


class Archived(msgspec.Struct, frozen=True):
    """A stretch of turns that is safe in the archive: the first ones that the store still has."""

    start: int
    stop: int
    digests: bytes
    """Their digests, joined: they must still be these."""


class Renewal(msgspec.Struct, frozen=True):
    """`held`: the lease is still ours and was extended. `interrupted`: somebody asks us to stop."""

    held: bool
    interrupted: bool = False


class Counted(msgspec.Struct, frozen=True):
    """A conversation that is there, and how much is kept of it."""

    key: ConversationKey
    stored: Stored


class ConversationStore(Protocol):
    """Keeps dialogues. Every method raises `StoreUnavailable` when the store does not answer."""

    async def begin(self, key: ConversationKey, claim: Claim) -> Begun | Busy | Missing:
        """Take the lease and read the window, or a place in the queue, in one round trip.

        First come, first served by the store's own clock and order. A ticket not renewed by another
        `begin` for `TICKET_MS` is dropped, so a gateway that died holds nobody up.
        """

    async def renew(self, key: ConversationKey, lease: Lease) -> Renewal:
        """Extend the lease by its duration from now."""

    async def commit(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        """Write the change and free the lease, atomically.

        Raises `LeaseLost` if the lease is no longer held (expired and taken, or expired and fenced),
        `ConversationErased` if the conversation was erased meanwhile. A lease that merely expired, with
        nobody after it, still commits. Idempotent for a repeated call with the same lease: a commit whose
        answer got lost in the network may be sent again and changes nothing the second time. Raises
        `TurnsArchived` if it goes back to turns that have to be restored first, `ConversationFull` if the
        conversation has as much as it may have and would grow.
        """

    async def remember(self, key: ConversationKey, learned: Learned) -> bool:
        """Add a version of the memory, without the lease: turns may be written meanwhile.

        False, and nothing is changed, if it no longer fits: the turns it was made of are others now, another
        version came first, or the conversation is gone. The cut stays; the next commit moves it.
        """

    async def rebind(self, key: ConversationKey, binding: Binding, *, turn_count: int) -> bool:
        """Say where the KV lies now, unless turns were written meanwhile; whether it was said."""

    async def describe(self, key: ConversationKey, metadata: bytes) -> bool:
        """Replace what the client noted about a conversation; False if there is none."""

    async def release(self, key: ConversationKey, lease: Lease) -> None:
        """Free the lease without writing; no error if it is no longer ours."""

    async def leave(self, key: ConversationKey, owner: str) -> None:
        """Give up the ticket in the queue, and the lease if it was just granted to `owner`."""

    async def digests(
        self, key: ConversationKey, start: int = 0, stop: int | None = None
    ) -> tuple[bytes, ...]:
        """The digests of turns `start` to `stop` (exclusive; None: the last), oldest first.

        All of them are for the rare alignment that `digest_turns` did not cover.
        """

    async def read(self, key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        """Turns `start` (inclusive) to `stop` (exclusive) of the active branch."""

    async def kept(self, key: ConversationKey, start: int, stop: int) -> tuple[int, tuple[Turn, ...]]:
        """The same, without those in the archive; first, how many of the dialogue's turns are there."""

    async def shed(self, key: ConversationKey, archived: Archived) -> bool:
        """Drop turns that are in the archive now, all before the cut; False if they no longer fit."""

    async def restore(self, key: ConversationKey, start: int, turns: Sequence[Turn]) -> bool:
        """Put archived turns back, from `start` to where the store's begin; False if they do not fit."""

    async def load(self, key: ConversationKey) -> Conversation | None:
        """The conversation without its turns and without a lease; None if there is none."""

    async def branch(self, key: ConversationKey, number: int) -> Branch:
        """A saved branch (1-based): the turn index at which it left, and its turns."""

    async def branches_at(self, key: ConversationKey, index: int) -> tuple[int, ...]:
        """The numbers of the branches that left at this turn, oldest first."""

    async def rate(self, key: ConversationKey, item: str, rating: bytes) -> bool:
        """Keep what somebody thinks of an item (empty: take it back); False if there are too many already.

        Raises `ConversationNotFound`.
        """

    async def ratings(self, key: ConversationKey, items: Sequence[str]) -> tuple[bytes, ...]:
        """What was kept of each of these items, empty for nothing."""

    async def embed(self, key: ConversationKey, vectors: Vectors, *, most: int) -> bool:
        """Keep the vectors of archived turns, in place of those from `vectors.start` on; the newest `most`.

        False, and nothing is changed, if a turn before the cut was replaced since they were read, or the
        conversation is gone. Those before stay if they are of the same form and nothing is missing between.
        """

    async def vectors(
        self, key: ConversationKey, start: int = 0, stop: int = 0
    ) -> tuple[VectorSpan, tuple[bytes, ...]]:
        """Which turns have a vector, and the records of turns `start` to `stop` of them.

        Their turns may have been replaced since: a record's stamp tells.
        """

    async def register(self, tenant: str, user: str, key: ConversationKey) -> None:
        """Put the conversation into the user's index. Raises `UserErased` if the user was erased."""

    async def unregister(self, tenant: str, user: str, key: ConversationKey) -> None:
        """Take it out of the index again, unless there is such a conversation or one is being begun."""

    async def conversations_of(self, tenant: str, user: str) -> tuple[str, ...]:
        """The ids in the user's index, oldest first."""

    async def erase(self, key: ConversationKey) -> None:
        """Delete a conversation and fence its writers: a commit under way will raise `ConversationErased`."""

    async def erase_user(self, tenant: str, user: str) -> int:
        """Erase every conversation of a user and leave a tombstone; returns how many there were."""

    async def usage(self, tenants: Collection[str]) -> Mapping[str, Stored]:
        """Add what this process wrote and erased since the last time to its tenants' totals.

        Returns the totals of these tenants, and of those that it added to. What could not be told is kept for
        the next time. Nobody tells of what expired, or of what a process had not told when it was killed:
        `recounted` does.
        """

    def census(self) -> AsyncGenerator[Sequence[Counted], None]:
        """Every conversation there is, some at a time: one that is there all the while is not missed.

        Takes long. Raises `StoreUnavailable`.
        """

    async def recounted(self, totals: Mapping[str, Stored]) -> None:
        """These are the totals of all tenants; one that is not among them has nothing."""

    async def is_first(self, what: str, *, within_ms: int) -> bool:
        """Whether no process has asked this for so long: who is told so does it, for all of them."""

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless the store answers."""

    async def close(self) -> None:
        """Give the connections back."""


class Embedder(Protocol):
    """What makes vectors of texts. All of one model, and of one length."""

    async def of_question(self, text: str) -> list[float] | None:
        """The vector of what a message asks; None if there is none in time. Never raises."""

    async def of_turns(self, texts: Sequence[str]) -> Sequence[list[float]]:
        """The vectors of texts that nobody waits for. Raises its own errors where no node gives any."""


class Archive(Protocol):
    """Keeps turns that are far behind the window. Every method raises `StoreUnavailable` if it cannot."""

    async def write(self, key: ConversationKey, start: int, turns: Sequence[Turn]) -> None:
        """Keep `SEGMENT` turns from `start` on, a multiple of it; for good before this returns."""

    async def read(self, key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        """Turns `start` (inclusive) to `stop` (exclusive). Raises `StoreFault` if some are missing."""

    async def erase(self, key: ConversationKey) -> None:
        """Delete everything of a conversation."""

    def folders(self, before: float) -> AsyncGenerator[str, None]:
        """The folders of conversations (`archive.folder_of`) that seem to have nothing newer than `before`.

        Unix seconds, by the archive's own clock. One may come twice.
        """

    async def clear(self, folder: str, before: float) -> int:
        """Delete a folder, unless something in it was written since; how many pieces went."""
