"""What every store must agree on: how long tickets and graves last, which ids are allowed, how the cut moves.

The Lua scripts of the Redis store follow the same rules; the contract suite holds both to them.
"""

import re
from collections.abc import Sequence

import msgspec

from history.conversation import Conversation, ConversationKey, Memory, PastMark
from history.errors import ConversationErased, InvalidMessages
from history.ports import Change, Claim, Learned

TICKET_MS = 3_000
"""A ticket not renewed for this long is dropped, so ask again well before."""

GRAVE_MS = 86_400_000
"""How long an erased user keeps its tombstone, and a turn that is never committed its fence: longer than any
turn."""

COMMITS_REMEMBERED = 8
"""How many of the newest commits may be sent again without effect."""

MEMORIES_KEPT = 4
"""How many versions of its memory a conversation keeps: enough for a branch a few cuts back."""

RATINGS_KEPT = 10_000
"""How many items of a conversation may be rated."""

USAGES_REMEMBERED = 64
"""How many of the newest additions to a tenant's total may be sent again without effect."""

MAX_ID_CHARS = 256

_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def check_key(key: ConversationKey) -> None:
    """Raise `InvalidMessages` for an id that cannot be kept, `ValueError` for such a tenant."""
    check_tenant(key.tenant)
    if not 0 < len(key.id) <= MAX_ID_CHARS:
        raise InvalidMessages(f"a conversation id has 1 to {MAX_ID_CHARS} characters", param="conversation")


def check_user(tenant: str, user: str) -> None:
    """Raise `InvalidMessages` for a user that cannot be kept, `ValueError` for such a tenant."""
    check_tenant(tenant)
    if not 0 < len(user) <= MAX_ID_CHARS:
        raise InvalidMessages(f"a user has 1 to {MAX_ID_CHARS} characters", param="user")


def check_tenant(tenant: str) -> None:
    """Raise `ValueError` unless the name is safe inside a key. It comes from configuration."""
    if _TENANT.fullmatch(tenant) is None:
        raise ValueError(f"tenant {tenant!r} must be 1 to 128 of A-Z a-z 0-9 _ . -")


def check_claim(claim: Claim) -> None:
    """Raise `ValueError` for a claim that could never be told apart or would never end."""
    if not claim.owner:
        raise ValueError("a claim needs an owner")
    if claim.lease_ms <= 0:
        raise ValueError(f"a lease lasts longer than {claim.lease_ms} ms")


def keep_refused(keep: int, turn_count: int) -> ValueError:
    """The caller's mistake: it keeps more turns than there are."""
    return ValueError(f"a change keeps 0 to {turn_count} turns here, not {keep}")


def cut_refused(cut: int, turn_count: int) -> ValueError:
    """The caller's mistake: its cut lies outside the dialogue."""
    return ValueError(f"after this change the cut lies between 0 and {turn_count}, not at {cut}")


def branch_refused(number: int) -> ValueError:
    """The caller's mistake: what it wants to put away belongs to another place."""
    return ValueError(f"branch {number} did not leave at the turn from which on turns are replaced")


def is_gone() -> ConversationErased:
    """A turn of a conversation that is no more is not kept: a dialogue would begin in its middle."""
    return ConversationErased("the conversation was erased, or expired, while its turn was being written")


def moved_cut(conversation: Conversation, change: Change) -> int:
    """Where the cut lies after the change.

    It only moves forward while turns are added. A change that replaces stored turns may set it back; if it
    says nothing, the cut falls back to the last turn kept. Raises `ValueError` if the change makes no sense.
    """
    turn_count = change.keep + len(change.append)
    if not 0 <= change.keep <= conversation.turn_count:
        raise keep_refused(change.keep, conversation.turn_count)
    if change.cut is not None and not 0 <= change.cut <= turn_count:
        raise cut_refused(change.cut, turn_count)
    if change.keep < conversation.turn_count:
        return min(conversation.cut, change.keep) if change.cut is None else change.cut
    return conversation.cut if change.cut is None else max(conversation.cut, change.cut)


def marked(mark: PastMark, *, keep: int, cut: int) -> PastMark:
    """The mark after a commit that keeps the first `keep` turns of the branch and leaves the cut at `cut`."""
    if keep < mark.reach:
        return PastMark(number=mark.number + 1, reach=cut)
    return PastMark(number=mark.number, reach=max(mark.reach, cut))


def kept_memories(conversation: Conversation, change: Change) -> tuple[Memory, ...]:
    """The versions that are still true after the change: those that cover no turn it replaces, and the one
    that a branch shows.
    """
    if change.keep == conversation.turn_count:
        return conversation.memories
    still = [one for one in conversation.memories if one.covers_to <= change.keep]
    if change.shown is not None and all(one.covers_to != change.shown.covers_to for one in still):
        still = sorted((*still, change.shown), key=lambda one: one.covers_to)
    return tuple(one for one in still if one.covers_to <= change.keep)


def with_newest(conversation: Conversation, memory: Memory) -> tuple[Memory, ...]:
    """The versions once this one is added: the newest `MEMORIES_KEPT`, and the one that the prompt shows.

    Without the latter a prompt's beginning would change between cuts, when a memory that lagged catches up.
    """
    versions = (*conversation.memories, memory)
    shown = (one for one in versions[:-MEMORIES_KEPT] if one.covers_to == conversation.shows)
    return (*shown, *versions[-MEMORIES_KEPT:])


def changed(before: Conversation, change: Change, *, cut: int) -> Conversation:
    """The conversation after a change that was found to be possible, but for how much is stored of it.

    `cut` is what `moved_cut` says.
    """
    memories = kept_memories(before, change)
    replaces = change.save_branch and change.keep < before.turn_count and not change.into_branch
    return msgspec.structs.replace(
        before,
        user=before.user if change.user is None else change.user,
        character=before.character if change.character is None else change.character,
        metadata=before.metadata if change.metadata is None else change.metadata,
        persona=before.persona if change.persona is None else change.persona,
        epoch=before.epoch + change.new_epoch,
        turn_count=change.keep + len(change.append),
        cut=cut,
        branches=before.branches + replaces + len(change.branches),
        past=marked(before.past, keep=change.keep, cut=cut),
        shows=before.shows if change.shows is None else change.shows,
        grows_to=before.grows_to if change.grows_to is None else change.grows_to,
        memories=memories,
        memory_version=before.memory_version + (memories != before.memories),
        binding=before.binding if change.binding is None else change.binding,
        updated_at=change.at,
    )


def is_stale(conversation: Conversation, learned: Learned, digests: Sequence[bytes]) -> bool:
    """Whether a version was overtaken. `digests` are those stored for the turns it was made of."""
    newest = conversation.memories[-1].covers_to if conversation.memories else 0
    covers_to = learned.memory.covers_to
    return (
        learned.expected_version != conversation.memory_version
        or not newest < covers_to <= conversation.turn_count
        or b"".join(digests) != learned.digests
    )
