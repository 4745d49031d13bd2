"""Dialogues from files into the store: any length, resumable, doubling nothing. The use case.

What is stored already is the mark of how far an import came: the turns of the file are held against it by
their digests, and what follows is written. So a file that was imported half goes on where it stopped, and
one that has grown since brings what is new.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable

import msgspec
from msgspec.structs import replace

from history.beginning import Owner, character_of
from history.conversation import ConversationKey
from history.editing import Editor
from history.errors import ConversationMismatch
from history.growing import Growing
from history.import_events import Event, Replaced, Start, Whole, grouped
from history.ports import ConversationStore

_DIGESTS = 1_000


class Wanted(msgspec.Struct, frozen=True):
    """What the importer is told beside the file; what is left empty is the file's to say."""

    tenant: str
    user: str = ""
    character: str = ""
    id: str = ""
    """For a file of one dialogue."""
    persona: bytes = b""


class Imported(msgspec.Struct, frozen=True):
    """One dialogue that is in the store now."""

    id: str
    line: int
    added: int
    """Turns that were written."""
    known: int
    """Turns that were there."""


class Importer:
    """Imports into one store."""

    def __init__(self, editor: Editor, store: ConversationStore, wanted: Wanted) -> None:
        self._editor = editor
        self._store = store
        self._wanted = wanted

    async def run(self, events: Iterable[Event]) -> AsyncIterator[Imported]:
        """Import the dialogues, one after the other; wrong lines are left out.

        Raises `ConversationMismatch` where something else is stored under a dialogue's id, and what writing
        raises: `ConversationErased`, `ConversationBusy`, `StoreUnavailable`. What was written stays, and the
        same call goes on there.
        """
        inlet: _Inlet | None = None
        for event in grouped(events):
            if isinstance(event, Start):
                if inlet is not None:
                    yield await inlet.finish()
                inlet = await self._inlet(event)
            elif isinstance(event, Whole) and inlet is not None:
                await inlet.take(event)
            elif isinstance(event, Replaced) and inlet is not None:
                await inlet.take_branch(event)
        if inlet is not None:
            yield await inlet.finish()

    async def _inlet(self, start: Start) -> "_Inlet":
        wanted, said = self._wanted, start.beginning
        persona = wanted.persona or said.persona
        owner = Owner(
            user=wanted.user or said.owner.user,
            character=wanted.character or said.owner.character or character_of(persona),
        )
        key = ConversationKey(
            wanted.tenant, wanted.id or start.id or _id(wanted.tenant, owner.user, start.seed)
        )
        stored = await self._store.load(key)
        if stored is not None and owner.user and stored.user != owner.user:
            raise ConversationMismatch(f"line {start.line}: conversation {key.id!r} belongs to another user")
        beginning = replace(said, owner=owner, persona=persona)
        growing = Growing(
            self._editor, self._store, key, beginning, None if stored is None else stored.turn_count
        )
        return _Inlet(self._editor, self._store, key, growing, start)


class _Inlet:
    """One dialogue on its way into the store."""

    def __init__(
        self, editor: Editor, store: ConversationStore, key: ConversationKey, growing: Growing, start: Start
    ) -> None:
        self._editor = editor
        self._store = store
        self._key = key
        self._growing = growing
        self._start = start
        self._stored = growing.count
        self._seen = 0
        self._added = 0
        self._branches = 0
        self._page: tuple[int, tuple[bytes, ...]] = (0, ())
        self._ratings: list[tuple[str, bytes]] = []

    async def take(self, whole: Whole) -> None:
        """The next turn."""
        at, digests = self._seen, whole.group.turn.digests
        self._seen += 1
        if at >= self._stored:
            await self._growing.add(whole.group, cut=self._start.cut)
            self._added += 1
        elif (stored := await self._digests(at)) != digests:
            if at != self._stored - 1 or not digests.startswith(stored) or not await self._waits(at):
                raise self._mismatch(at, whole.line)
            await self._growing.replace_last(whole.group)
            self._added += 1
        self._ratings += whole.ratings

    async def take_branch(self, replaced: Replaced) -> None:
        """The next branch, unless it is there."""
        self._branches += 1
        self._ratings += replaced.ratings
        await self._growing.flush(cut=self._start.cut)
        conversation = await self._store.load(self._key)
        if conversation is not None and conversation.branches < self._branches:
            await self._growing.flush(branches=(replaced.branch,))

    async def finish(self) -> Imported:
        """No more of it is to come."""
        start = self._start
        await self._growing.flush(cut=start.cut)
        conversation = await self._store.load(self._key)
        if start.memories and conversation is not None and not conversation.memories:
            cut = min(start.cut or 0, self._growing.count)
            at = start.updated_at or self._editor.now()
            await self._growing.settle(cut=cut, shows=start.shows, binding=None, at=at)
            await self._growing.remember(start.memories)
        for item, rating in self._ratings:
            await self._store.rate(self._key, item, rating)
        known = self._seen - self._added
        return Imported(id=self._key.id, line=start.line, added=self._added, known=known)

    async def _digests(self, at: int) -> bytes:
        first, page = self._page
        if not first <= at < first + len(page):
            page = await self._store.digests(self._key, at, min(at + _DIGESTS, self._stored))
            self._page = (at, page)
            first = at
        return page[at - first] if at - first < len(page) else b""

    async def _waits(self, at: int) -> bool:
        """Whether the stored turn is not complete, so that more of it may come."""
        turns = await self._store.read(self._key, at, at + 1)
        return bool(turns) and turns[0].status != "complete"

    def _mismatch(self, at: int, line: int) -> ConversationMismatch:
        return ConversationMismatch(
            f"line {line}: conversation {self._key.id!r} has another turn {at} than the file; "
            "give the file an id of its own (--id), or erase what is there"
        )


def _id(tenant: str, user: str, seed: bytes) -> str:
    whole = msgspec.json.encode([tenant, user]) + seed
    return f"conv_{hashlib.sha256(whole).hexdigest()[:32]}"
