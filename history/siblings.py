"""The versions of a turn: answers that were replaced stay as branches, and any of them can be taken back.

Versions are numbered from 1 by the time they were written, so a number keeps its meaning when another version
is selected, and a new answer gets the next one.
"""

import msgspec

from history.conversation import Conversation, ConversationKey, Turn
from history.editing import Edited, Editor
from history.errors import InvalidMessages
from history.ports import Begun, Change, ConversationStore


class Version(msgspec.Struct, frozen=True):
    """One of the turns that have stood at a place."""

    number: int
    turn: Turn
    branch: int
    """Which branch it is kept in; 0: it is the active one."""
    following: int
    """How many turns came behind it."""


async def versions(
    store: ConversationStore, key: ConversationKey, conversation: Conversation, index: int
) -> tuple[Version, ...]:
    """All versions of turn `index`, in the order in which they were written."""
    active = await store.read(key, index, index + 1)
    found = [(turn, 0, conversation.turn_count - index - 1) for turn in active]
    for number in await store.branches_at(key, index):
        _, turns = await store.branch(key, number)
        if turns:
            found.append((turns[0], number, len(turns) - 1))
    found.sort(key=lambda one: (one[0].at, one[0].mark, one[0].digests))
    return tuple(
        Version(number=number, turn=turn, branch=branch, following=following)
        for number, (turn, branch, following) in enumerate(found, start=1)
    )


async def select(
    editor: Editor, store: ConversationStore, key: ConversationKey, *, index: int | None, number: int
) -> Edited:
    """Make version `number` of turn `index` (None: the last) the active one, with what came behind it.

    What was active takes its place among the branches; nothing changes if it is the active one already.
    Raises `InvalidMessages` if there is no such version, and what `Editor.edit` raises.
    """

    async def plan(begun: Begun) -> Change | None:
        count = begun.conversation.turn_count
        at = count - 1 if index is None else index
        known = await versions(store, key, begun.conversation, at) if 0 <= at < count else ()
        wanted = next((one for one in known if one.number == number), None)
        if wanted is None:
            raise InvalidMessages(f"there is no sibling {number}; there are {len(known)}", param="sibling")
        if not wanted.branch:
            return None
        _, turns = await store.branch(key, wanted.branch)
        return Change(
            keep=at,
            append=turns,
            at=editor.now(),
            save_branch=True,
            into_branch=wanted.branch,
        )

    return await editor.edit(key, plan)
