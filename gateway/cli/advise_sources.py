"""The three places that `friendo advise` takes dialogues from: the store, a file, and its own generator."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from pathlib import Path

import xxhash

from gateway.advise.counting import TokenCounter
from gateway.advise.generator import People, generated
from gateway.advise.source import Heard
from gateway.advise.talk import Listener
from gateway.cli.conversation_import import numbered, parsed
from gateway.errors import BadOption
from history.beginning import character_of
from history.conversation import Conversation, ConversationKey, Turn
from history.errors import ConversationNotFound
from history.import_events import Start, Whole, Wrong, grouped
from history.pages import pages
from history.ports import ConversationStore
from history.sketch import Sized

_TURNS_AT_ONCE = 32


class MadeUp:
    """The generator's dialogues: lengths and times, no words."""

    has_words = False

    def __init__(self, people: People, seed: int) -> None:
        self.name = f"{people.dialogues} made-up dialogues (seed {seed})"
        self.identity = f"generated {people} {seed}"
        self.total = people.dialogues
        self._people = people
        self._seed = seed

    async def heard(self, known: Collection[int]) -> AsyncIterator[Heard]:
        """Each dialogue by its number."""
        for number, sketch in enumerate(generated(self._people, self._seed), start=1):
            if number not in known:
                yield Heard(place=number, sketch=sketch, progress=number)


class FromFile:
    """A file that `friendo conversations import` knows as well; each dialogue by the line it begins in."""

    has_words = True

    def __init__(self, path: Path, counter: TokenCounter | None) -> None:
        """Raises `OSError` if the file is not there."""
        found = path.stat()
        self.name = path.name
        self.identity = f"file {path.resolve()} {found.st_size} {found.st_mtime_ns} {counter is not None}"
        self.total = found.st_size
        self._path = path
        self._counter = counter
        self._read = 0

    async def heard(self, known: Collection[int]) -> AsyncIterator[Heard]:
        """Read on behind the last known line. Raises `BadOption` if there is no dialogue in the file."""
        self._read = 0
        wrong = found = place = 0
        listener: Listener | None = None
        waiting: list[Turn] = []
        first = ""
        for event in grouped(parsed(self._lines(max(known, default=0)), lambda: b"")):
            if isinstance(event, Wrong):
                wrong += 1
                first = first or f"{self._path}:{event.line}: {event.reason}"
            elif isinstance(event, Start):
                if listener is not None and place not in known:
                    yield await self._whole(listener, waiting, place, wrong)
                listener, waiting, place = _listener(event), [], event.line
                found += 1
            elif isinstance(event, Whole) and listener is not None:
                waiting.append(event.group.turn)
                if len(waiting) == _TURNS_AT_ONCE:
                    await taken(listener, waiting, self._counter)
                    waiting = []
        if listener is not None and place not in known:
            yield await self._whole(listener, waiting, place, wrong)
        if not found and not known:
            raise BadOption(f"no dialogue can be read: {first or f'{self._path} is empty'}")

    def _lines(self, after: int) -> Iterator[tuple[int, bytes]]:
        for number, line in numbered(self._path, self._moved):
            if number >= after:
                yield number, line

    def _moved(self, count: int) -> None:
        self._read += count

    async def _whole(self, listener: Listener, waiting: list[Turn], place: int, wrong: int) -> Heard:
        await taken(listener, waiting, self._counter)
        persona = await listener.counted_persona(self._counter)
        talk = listener.talk(persona)
        return Heard(place=place, sketch=talk.sketch, talk=talk, progress=self._read, wrong=wrong)


class FromStore:
    """The conversations of one tenant, in no order; each by a hash of its id."""

    has_words = True
    total = 0

    def __init__(
        self, store: ConversationStore, tenant: str, where: str, counter: TokenCounter | None
    ) -> None:
        self.name = f"the store's conversations of tenant {tenant}"
        self.identity = f"store {where} {tenant} {counter is not None}"
        self._store = store
        self._tenant = tenant
        self._counter = counter

    async def heard(self, known: Collection[int]) -> AsyncIterator[Heard]:
        """Every conversation that is there; what is erased meanwhile is left out."""
        count = 0
        async for some in self._store.census():
            for one in some:
                place = xxhash.xxh3_64_intdigest(one.key.id.encode("utf-8", "surrogatepass"))
                if one.key.tenant != self._tenant:
                    continue
                count += 1
                if place in known:
                    continue
                if (heard := await self._conversation(one.key, place, count)) is not None:
                    yield heard

    async def _conversation(self, key: ConversationKey, place: int, count: int) -> Heard | None:
        conversation = await self._store.load(key)
        if conversation is None or not conversation.turn_count:
            return None
        listener = _of_store(conversation)
        try:
            async for _, turns in pages(self._store, key, 0, conversation.turn_count):
                await taken(listener, turns, self._counter)
        except ConversationNotFound:
            return None
        talk = listener.talk(await listener.counted_persona(self._counter))
        return Heard(place=place, sketch=talk.sketch, talk=talk, progress=count)


async def taken(listener: Listener, turns: Sequence[Turn], counter: TokenCounter | None) -> None:
    """Have these turns heard, with their tokens counted where somebody counts."""
    sizes: Sequence[Sized | None] = [None] * len(turns)
    if counter is not None:
        sizes = await counter.sizes(turns)
    for turn, size in zip(turns, sizes, strict=True):
        listener.take(turn, size)


def _listener(start: Start) -> Listener:
    beginning = start.beginning
    character = beginning.owner.character or character_of(beginning.persona)
    return Listener(persona=beginning.persona, character=character, memories=start.memories)


def _of_store(conversation: Conversation) -> Listener:
    return Listener(
        persona=conversation.persona, character=conversation.character, memories=conversation.memories
    )
