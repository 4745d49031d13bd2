"""The items of a conversation in pages, forwards or backwards, from any of them on."""

from collections.abc import AsyncIterator, Iterable

from history.conversation import Conversation, ConversationKey
from history.items import PERSONA_TURN, Item, Place, items_of, persona_item
from history.ports import ConversationStore

_TURNS_AT_ONCE = 32


async def items_after(
    store: ConversationStore,
    key: ConversationKey,
    conversation: Conversation,
    place: Place | None,
    *,
    newest_first: bool,
) -> AsyncIterator[Item]:
    """The items behind `place` in this order, or all of them; read as far as somebody asks."""
    count = conversation.turn_count
    if newest_first:
        stop = count if place is None else max(0, place.turn + 1)
        while stop > 0:
            first = max(0, stop - _TURNS_AT_ONCE)
            for item in behind(await _items(store, key, first, stop), place, newest_first=True):
                yield item
            stop = first
    if conversation.persona and (place is None or (newest_first and place.turn > PERSONA_TURN)):
        yield persona_item(conversation.persona, conversation.epoch)
    if not newest_first:
        first = 0 if place is None else max(0, place.turn)
        while first < count:
            stop = min(count, first + _TURNS_AT_ONCE)
            for item in behind(await _items(store, key, first, stop), place, newest_first=False):
                yield item
            first = stop


def behind(items: Iterable[Item], place: Place | None, *, newest_first: bool) -> list[Item]:
    """Those of the items (oldest first) that come behind `place`, in the order asked for."""
    if newest_first:
        return [one for one in items if place is None or one.place < place][::-1]
    return [one for one in items if place is None or one.place > place]


async def _items(store: ConversationStore, key: ConversationKey, first: int, stop: int) -> list[Item]:
    turns = await store.read(key, first, stop)
    return [item for at, turn in enumerate(turns, start=first) for item in items_of(turn, at)]
