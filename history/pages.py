"""A dialogue of any length, read a page at a time: no answer of the store is large."""

from collections.abc import AsyncIterator

from history.conversation import ConversationKey, Turn
from history.errors import ConversationNotFound
from history.items import Item, items_of, persona_item, read_id
from history.ports import ConversationStore

PAGE_TURNS = 100


async def pages(
    store: ConversationStore, key: ConversationKey, start: int, stop: int
) -> AsyncIterator[tuple[int, tuple[Turn, ...]]]:
    """Turns `start` to `stop`: each page's first index, and its turns.

    Raises `ConversationNotFound` if they are no longer there: it was erased, or others replaced them.
    """
    for first in range(start, stop, PAGE_TURNS):
        last = min(first + PAGE_TURNS, stop)
        turns = await store.read(key, first, last)
        if len(turns) != last - first:
            raise ConversationNotFound(key.id)
        yield first, turns


async def find_item(store: ConversationStore, key: ConversationKey, item_id: str) -> tuple[Item, Turn] | None:
    """The item of this id in the active branch, and its turn (an empty one for the persona)."""
    place = read_id(item_id)
    if place is None:
        return None
    if place.turn < 0:
        conversation = await store.load(key)
        if conversation is None or not conversation.persona:
            return None
        item = persona_item(conversation.persona, conversation.epoch)
        return (item, Turn(messages=(), digests=b"")) if item.id == item_id else None
    turns = await store.read(key, place.turn, place.turn + 1)
    items = items_of(turns[0], place.turn) if turns else ()
    found = next((item for item in items if item.id == item_id), None)
    return (found, turns[0]) if found else None
