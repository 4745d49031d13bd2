"""What the store in memory keeps under one key, and for how long: its counterpart of a hash slot in Redis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from history.conversation import Conversation, Lease, Stored, Turn, turn_size
from history.meaning import NO_VECTORS, Vectors, VectorSpan
from history.ports import Begun, Branch, Change, Claim
from history.store_rules import changed


@dataclass(slots=True)
class Slot:
    """Everything under one key. `conversation` is None until the first commit."""

    conversation: Conversation | None = None
    turns: list[Turn] = field(default_factory=list)
    """From `base` on."""
    digests: list[bytes] = field(default_factory=list)
    """Of all turns."""
    branches: list[Branch] = field(default_factory=list)
    ratings: dict[str, bytes] = field(default_factory=dict)
    vectors: Vectors | None = None
    seen: dict[str, float] = field(default_factory=dict)
    """The queue: when each owner last asked, in order of arrival."""
    owner: str = ""
    fence: int = 0
    expires: float = 0.0
    """When the lease ends."""
    dies_at: float = math.inf
    """When everything here is gone."""
    interrupted_fence: int = 0
    done: tuple[tuple[str, int], ...] = ()
    """The newest commits, by owner and fence: behind an erasure, fences begin anew and owners do not."""

    @property
    def base(self) -> int:
        """How many of the first turns are in the archive."""
        return self.conversation.base if self.conversation else 0

    def holds(self, lease: Lease) -> bool:
        """Whether this lease is the one that was granted last, and not given back."""
        return self.owner == lease.owner and self.fence == lease.fence

    def has_branch(self, number: int, index: int) -> bool:
        """Whether there is such a branch, and it left at this turn."""
        return 1 <= number <= len(self.branches) and self.branches[number - 1][0] == index

    def free(self) -> None:
        """Nobody holds a lease."""
        self.owner, self.expires = "", 0.0

    def outlive(self, now: float, needed_ms: float) -> None:
        """A turn must not outlive its conversation: at least so long from now."""
        self.dies_at = max(self.dies_at, now + needed_ms)

    def begun(self, claim: Claim) -> Begun:
        """What whoever was granted the lease gets to see."""
        conversation = self.conversation or Conversation()
        newest = self.digests[-claim.digest_turns :] if claim.digest_turns > 0 else []
        return Begun(
            conversation=conversation,
            turns=tuple(self.turns[conversation.cut - conversation.base :]),
            lease=Lease(owner=claim.owner, fence=self.fence, duration_ms=claim.lease_ms),
            is_new=self.conversation is None,
            digests=tuple(newest),
        )

    def embed(self, more: Vectors, *, most: int) -> bool:
        """Keep vectors; False if they are of other turns than those that are here."""
        conversation, had = self.conversation, self.vectors
        if conversation is None or (conversation.created_at, conversation.past.number) != (
            more.created_at,
            more.past,
        ):
            return False
        records, start = more.records, more.start
        if had is not None and had.form == more.form and had.start <= start <= had.start + len(had.records):
            records, start = (*had.records[: start - had.start], *records), had.start
        gone = max(0, len(records) - most)
        self.vectors = replace(more, start=start + gone, records=records[gone:])
        return True

    def embedded(self, start: int, stop: int) -> tuple[VectorSpan, tuple[bytes, ...]]:
        """Which turns have a vector, and some of these."""
        had = self.vectors
        if had is None:
            return NO_VECTORS, ()
        span = VectorSpan(had.form, had.past, had.start, had.start + len(had.records))
        return span, had.records[max(0, start - had.start) : max(0, stop - had.start)]

    def grown(self, before: Conversation, change: Change) -> Stored:
        """How much is kept once the change is written."""
        more = [*change.append, *(turn for _, turns in change.branches for turn in turns)]
        less: Sequence[Turn] = ()
        if change.save_branch and change.keep < before.turn_count and change.into_branch:
            less = self.branches[change.into_branch - 1][1]
        elif not change.save_branch:
            less = self.turns[change.keep - before.base :]
        return Stored(
            turns=before.stored.turns + len(more) - len(less),
            bytes=before.stored.bytes + sum(map(turn_size, more)) - sum(map(turn_size, less)),
        )

    def change(self, before: Conversation, change: Change, *, cut: int, stored: Stored) -> Conversation:
        """Write a change that was found to be possible: `stored` says how much is kept then."""
        if change.save_branch and change.keep < before.turn_count:
            replaced = (change.keep, tuple(self.turns[change.keep - before.base :]))
            at = change.into_branch - 1 if change.into_branch else len(self.branches)
            self.branches[at : at + 1] = [replaced]
        self.branches += change.branches
        self.turns[change.keep - before.base :] = change.append
        self.digests[change.keep :] = [turn.digests for turn in change.append]
        self.conversation = replace(changed(before, change, cut=cut), stored=stored)
        return self.conversation
