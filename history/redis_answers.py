"""What the scripts of the Redis store answer, as its callers get it."""

import hashlib
from collections.abc import Callable
from typing import Any

from history.conversation import Lease, Stored
from history.errors import LeaseLost, StoreFault, TurnsArchived
from history.limits import LimitRule, full
from history.ports import Begun, Change, Claim
from history.redis_records import decode_conversation, decode_turns
from history.store_rules import branch_refused, cut_refused, is_gone, keep_refused


def begun(
    claim: Claim,
    exists: int,
    fence: int,
    fields: list[bytes | None],
    window: bytes,
    digests: list[bytes],
) -> Begun:
    """What a writer gets to see with its lease. Raises `StoreFault` if turns of the window are missing."""
    conversation, turns = decode_conversation(fields), decode_turns(window)
    expected = conversation.turn_count - conversation.cut
    if len(turns) != expected:
        raise StoreFault(
            f"{expected} turns should be in the window and {len(turns)} are: keys were lost, "
            "run the store with maxmemory-policy noeviction"
        )
    return Begun(
        conversation=conversation,
        turns=turns,
        lease=Lease(owner=claim.owner, fence=fence, duration_ms=claim.lease_ms),
        is_new=not exists,
        digests=tuple(digests),
    )


def sha1(digests: bytes) -> str:
    """For the script, which has no quicker hash, to tell whether turns are still the same."""
    return hashlib.sha1(digests, usedforsecurity=False).hexdigest()


def commit_refused(status: bytes, rest: list[Any], change: Change, limits: LimitRule) -> Exception:
    """The error for a commit that wrote nothing."""
    faults: dict[bytes, Callable[[], Exception]] = {
        b"full": lambda: full(Stored(*rest), limits),
        b"erased": is_gone,
        b"archived": lambda: TurnsArchived(rest[0]),
        b"keep": lambda: keep_refused(change.keep, rest[0]),
        b"branch": lambda: branch_refused(change.into_branch),
        b"cut": lambda: cut_refused(change.cut or 0, rest[0]),
        b"lost": lambda: LeaseLost("another writer took the conversation over; send the message again"),
    }
    return faults[status]()
