"""What the scripts of the Redis store answer, as its callers get it."""

import hashlib
from collections.abc import Callable
from typing import Any

from history.conversation import Lease, Stored
from history.errors import LeaseLost, StoreFault, TurnsArchived
from history.known_windows import Known, Version
from history.limits import LimitRule, full
from history.ports import Begun, Change, Claim
from history.redis_records import decode_changes, decode_turns
from history.store_rules import branch_refused, changed, cut_refused, is_gone, keep_refused, moved_cut


def begun(claim: Claim, known: Known, answer: list[Any]) -> tuple[Begun, Known]:
    """What a writer gets to see with its lease, and what is known of the window from now on.

    Raises `StoreFault` if turns of the window are missing.
    """
    exists, fence, commit, memory, start, fields, newer, digests = answer
    conversation = decode_changes(known.conversation, fields)
    known = known.with_newer(Version(commit, memory), conversation, decode_turns(newer), start=start)
    expected = conversation.turn_count - conversation.cut
    if len(known.turns) != expected:
        raise StoreFault(
            f"{expected} turns should be in the window and {len(known.turns)} are: keys were lost, "
            "run the store with maxmemory-policy noeviction"
        )
    held = Begun(
        conversation=conversation,
        turns=known.turns,
        lease=Lease(owner=claim.owner, fence=fence, duration_ms=claim.lease_ms),
        is_new=not exists,
        digests=tuple(digests),
    )
    return held, known


def committed(change: Change, known: Known, answer: list[Any]) -> Known:
    """The conversation as it is now, and its window where that is known, too: else without a commit."""
    commit, memory, has_grown, fields = answer
    before = known.conversation
    after = changed(before, change, cut=moved_cut(before, change)) if has_grown else before
    conversation = decode_changes(after, fields)
    if has_grown or (commit and conversation.turn_count == len(change.append)):
        return known.with_newer(Version(commit, memory), conversation, change.append, start=change.keep)
    return Known(conversation=conversation)


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
