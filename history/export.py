"""A conversation written out, a line for each turn, at any length. The use case."""

from collections.abc import AsyncIterator, Sequence

from history.conversation import ConversationKey, Turn
from history.errors import ConversationNotFound
from history.export_lines import head_line, turn_line
from history.items import items_of
from history.pages import PAGE_TURNS, pages
from history.ports import ConversationStore

_RATINGS_AT_ONCE = 1_000


async def exported(store: ConversationStore, key: ConversationKey, *, branches: bool) -> AsyncIterator[bytes]:
    """The lines of a conversation, those of the branches behind the others.

    Raises `ConversationNotFound`, also on the way, if it is erased meanwhile.
    """
    conversation = await store.load(key)
    if conversation is None:
        raise ConversationNotFound(key.id)
    count = conversation.branches if branches else 0
    yield head_line(key.id, conversation, branches=count)
    async for first, turns in pages(store, key, 0, conversation.turn_count):
        for line in await _lines(store, key, first, turns):
            yield line
    for number in range(1, count + 1):
        first, turns = await store.branch(key, number)
        for at in range(0, len(turns), PAGE_TURNS):
            page = turns[at : at + PAGE_TURNS]
            for line in await _lines(store, key, first + at, page, branch=number):
                yield line


async def exported_user(
    store: ConversationStore, tenant: str, user: str, *, branches: bool
) -> AsyncIterator[bytes]:
    """The lines of all conversations of a user. One that is erased meanwhile ends where it is."""
    for conversation_id in await store.conversations_of(tenant, user):
        key = ConversationKey(tenant, conversation_id)
        try:
            async for line in exported(store, key, branches=branches):
                yield line
        except ConversationNotFound:
            continue


async def _lines(
    store: ConversationStore, key: ConversationKey, first: int, turns: Sequence[Turn], *, branch: int = 0
) -> list[bytes]:
    """The lines of turns that begin at `first`, with the ratings of their items."""
    items = [[item.id for item in items_of(turn, at)] for at, turn in enumerate(turns, start=first)]
    flat = [item for of_turn in items for item in of_turn]
    known: dict[str, bytes] = {}
    for at in range(0, len(flat), _RATINGS_AT_ONCE):
        some = flat[at : at + _RATINGS_AT_ONCE]
        known |= zip(some, await store.ratings(key, some), strict=True)
    return [
        turn_line(turn, first + at, {item: known[item] for item in items[at]}, branch=branch)
        for at, turn in enumerate(turns)
    ]
