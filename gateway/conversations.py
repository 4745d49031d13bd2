"""Conversations as objects: what can be done with a stored dialogue beside talking. The use case.

Everything is named by the caller's tenant and an id, so another tenant's id names nothing.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from gateway.background import Delivered
from gateway.errors import BadRequest, NoSuchItem
from gateway.keys.key import Caller, require
from gateway.request import ChatRequest, read_bare_request
from gateway.upkeep import Upkeep
from history.beginning import Owner, character_of
from history.compactor import Outcome
from history.conversation import Conversation, ConversationKey, Turn
from history.editing import Editor
from history.errors import ConversationNotFound
from history.export import exported_user
from history.forking import Forks, Until
from history.item_pages import items_after
from history.items import PERSONA_TURN, Item, items_of
from history.message import Message
from history.pages import find_item
from history.ports import ConversationStore
from history.siblings import Version, select, versions

_LOOK_BACK = 8
"""How many turns are searched for the model that answered last."""


class Draft(msgspec.Struct, frozen=True):
    """A conversation to be created."""

    said: tuple[Message, ...] = ()
    persona: bytes = b""
    metadata: bytes = b""
    user: str = ""
    character: str = ""


class Page(msgspec.Struct, frozen=True):
    """Some items in the order asked for."""

    items: tuple[Item, ...]
    has_more: bool = False


class Compacted(msgspec.Struct, frozen=True):
    """What came of making a version of the memory; `outcome` None: none was due."""

    outcome: Outcome | None
    conversation: Conversation


class Listed(msgspec.Struct, frozen=True):
    """A conversation of a user, as an operator sees it."""

    id: str
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Conversations:
    """Does it, for the conversations of one store."""

    store: ConversationStore
    editor: Editor
    forks: Forks
    upkeep: Upkeep
    new_id: Callable[[], str]
    """Random; as nobody could guess."""
    forget: Callable[[ConversationKey], None]
    """Told of what was erased: it may be in the memory of this process."""
    rated: Callable[[Turn, bytes, bytes], None] = lambda _turn, _before, _after: None
    """Told of a rating: of an answer in which turn, what it was and what it is."""

    async def create(self, tenant: str, draft: Draft) -> tuple[str, Conversation]:
        """A new conversation and its id."""
        key = ConversationKey(tenant, self.new_id())
        owner = Owner(user=draft.user, character=draft.character or character_of(draft.persona))
        edited = await self.editor.append(
            key, draft.said, persona=draft.persona, metadata=draft.metadata, owner=owner
        )
        return key.id, edited.conversation

    async def retrieve(self, key: ConversationKey) -> Conversation:
        """Raises `ConversationNotFound`."""
        conversation = await self.store.load(key)
        if conversation is None:
            raise ConversationNotFound(key.id)
        return conversation

    async def describe(self, key: ConversationKey, metadata: bytes) -> Conversation:
        """Replace the metadata."""
        if not await self.store.describe(key, metadata):
            raise ConversationNotFound(key.id)
        return await self.retrieve(key)

    async def erase(self, key: ConversationKey) -> None:
        """Delete it; a turn that is being written is not stored."""
        await self.retrieve(key)
        await self.store.erase(key)
        self.forget(key)

    async def page(self, key: ConversationKey, *, after: str | None, limit: int, newest_first: bool) -> Page:
        """The next items behind the one called `after`."""
        conversation = await self.retrieve(key)
        place = None if after is None else (await self._find(key, after, "after"))[0].place
        found: list[Item] = []
        async for item in items_after(self.store, key, conversation, place, newest_first=newest_first):
            if len(found) == limit:
                return Page(tuple(found), has_more=True)
            found.append(item)
        return Page(tuple(found))

    async def item(self, key: ConversationKey, item_id: str) -> Item:
        """One item. Raises `NoSuchItem`."""
        await self.retrieve(key)
        return (await self._find(key, item_id, "item_id"))[0]

    async def append(self, key: ConversationKey, said: Sequence[Message], persona: bytes | None) -> Page:
        """Add messages at the end; the items that they became."""
        edited = await self.editor.append(key, said, persona=persona)
        change = edited.change
        if change is None:
            return Page(())
        items = [
            item for at, turn in enumerate(change.append, start=change.keep) for item in items_of(turn, at)
        ]
        added = [
            item for item in items if item.place.turn > change.keep or item.at_message >= edited.continued
        ]
        return Page(tuple(added))

    async def fork(
        self, key: ConversationKey, *, item: str | None, turn: int | None, metadata: bytes | None
    ) -> tuple[str, Conversation]:
        """A copy as far as an item or a turn, or of all of it, and its id."""
        conversation = await self.retrieve(key)
        until = await self._until(key, conversation, item, turn)
        new = ConversationKey(key.tenant, self.new_id())
        return new.id, await self.forks.fork(key, new, until, metadata)

    async def warm(
        self, key: ConversationKey, caller: Caller, body: bytes, headers: Mapping[bytes, bytes]
    ) -> Delivered | None:
        """Make the beginning of the next prompt resident on a node; None if there is nothing yet."""
        request = await self._request(key, caller, body, headers)
        return await self.upkeep.warm(key, request)

    async def compact(
        self, key: ConversationKey, caller: Caller, body: bytes, headers: Mapping[bytes, bytes]
    ) -> Compacted:
        """Make the version of the memory that is due."""
        request = await self._request(key, caller, body, headers)
        outcome = await self.upkeep.compact(key, request)
        return Compacted(outcome, await self.retrieve(key))

    async def _request(
        self, key: ConversationKey, caller: Caller, body: bytes, headers: Mapping[bytes, bytes]
    ) -> ChatRequest:
        """A request that shapes the conversation's next prompt as the caller's own would."""
        conversation = await self.retrieve(key)
        request = read_bare_request(
            body, headers, conversation=key.id, model=await self._model(key, conversation)
        )
        require(caller, scope="inference", model=request.model)
        return msgspec.structs.replace(request, salt=caller.salt)

    async def siblings(
        self, key: ConversationKey, *, item: str | None, turn: int | None
    ) -> tuple[int, tuple[Version, ...]]:
        """A turn (the last one unless named) and all its versions."""
        conversation = await self.retrieve(key)
        index = await self._index(key, conversation, item, turn)
        return index, await versions(self.store, key, conversation, index)

    async def select(
        self, key: ConversationKey, number: int, *, item: str | None, turn: int | None
    ) -> tuple[int, tuple[Version, ...]]:
        """Make a version the active one; the turn and its versions then."""
        conversation = await self.retrieve(key)
        named = item is not None or turn is not None
        index = await self._index(key, conversation, item, turn) if named else None
        edited = await select(self.editor, self.store, key, index=index, number=number)
        at = edited.change.keep if edited.change is not None else index
        if at is None:
            at = edited.conversation.turn_count - 1
        return at, await versions(self.store, key, edited.conversation, at)

    async def rate(self, key: ConversationKey, item_id: str, rating: bytes) -> Item:
        """Keep what somebody thinks of an answer; empty takes it back."""
        await self.retrieve(key)
        item, turn = await self._find_in(key, item_id, "item_id")
        if item.message.get("role") != "assistant":
            raise BadRequest("only what the assistant said can be rated", param="item_id")
        (before,) = await self.store.ratings(key, (item_id,)) if turn.reply.version else (b"",)
        if not await self.store.rate(key, item_id, rating):
            raise BadRequest("this conversation has as many ratings as can be kept", code="too_many_ratings")
        self.rated(turn, before, rating)
        return item

    async def of_user(
        self, tenant: str, user: str, *, after: str | None, limit: int
    ) -> tuple[tuple[Listed, ...], bool]:
        """A user's conversations, oldest first, and whether there are more behind them."""
        ids = await self.store.conversations_of(tenant, user)
        start = 0
        if after is not None:
            if after not in ids:
                raise NoSuchItem(f"this user has no conversation '{after}'", param="after")
            start = ids.index(after) + 1
        found = []
        for conversation_id in ids[start : start + limit]:
            conversation = await self.store.load(ConversationKey(tenant, conversation_id))
            if conversation is not None:
                found.append(Listed(conversation_id, conversation))
        return tuple(found), len(ids) > start + limit

    def export_user(self, tenant: str, user: str) -> AsyncIterator[bytes]:
        """All that is kept of a user, line by line."""
        return exported_user(self.store, tenant, user, branches=True)

    async def erase_user(self, tenant: str, user: str) -> int:
        """Erase all of a user's conversations; how many there were."""
        ids = await self.store.conversations_of(tenant, user)
        erased = await self.store.erase_user(tenant, user)
        for conversation_id in ids:
            self.forget(ConversationKey(tenant, conversation_id))
        return erased

    async def _find(self, key: ConversationKey, item_id: str, param: str) -> tuple[Item, int]:
        item, _ = await self._find_in(key, item_id, param)
        return item, item.place.turn

    async def _find_in(self, key: ConversationKey, item_id: str, param: str) -> tuple[Item, Turn]:
        found = await find_item(self.store, key, item_id)
        if found is None:
            raise NoSuchItem(f"the conversation has no item '{item_id[:128]}'", param=param)
        return found

    async def _index(
        self, key: ConversationKey, conversation: Conversation, item: str | None, turn: int | None
    ) -> int:
        """Which turn is meant; the last one unless named."""
        if item is not None:
            turn = (await self._find(key, item, "item"))[1]
        if turn is None:
            turn = conversation.turn_count - 1
        if not 0 <= turn < conversation.turn_count:
            have = f"turns 0 to {conversation.turn_count - 1}" if conversation.turn_count else "no turns"
            raise BadRequest(f"this conversation has {have}", param="item" if item else "turn")
        return turn

    async def _until(
        self, key: ConversationKey, conversation: Conversation, item: str | None, turn: int | None
    ) -> Until | None:
        if item is None and turn is None:
            return None
        if item is not None:
            found, at = await self._find(key, item, "item")
            if at == PERSONA_TURN:
                raise BadRequest("a fork has at least one turn; create a conversation instead", param="item")
            return Until(at, found)
        return Until(await self._index(key, conversation, None, turn))

    async def _model(self, key: ConversationKey, conversation: Conversation) -> str:
        """The model that answered last."""
        count = conversation.turn_count
        turns = await self.store.read(key, max(0, count - _LOOK_BACK), count)
        return next((turn.reply.model for turn in reversed(turns) if turn.reply.model), "")
