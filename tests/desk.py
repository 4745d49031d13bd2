"""A store in memory and everything that writes to it: where the use cases that edit dialogues are tried."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from history.conversation import Conversation, ConversationKey, Memory, Reply
from history.dialogue import Dialogues
from history.editing import Editor
from history.forking import Forks
from history.incoming import Incoming, read_incoming
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import Message, answer, message
from history.open_turn import Answer, Ask, OpenTurn
from history.ports import Learned
from history.rules import DialogueRules
from history.window import WindowSetting

KEY, OTHER = ConversationKey("t", "conv_a"), ConversationKey("t", "conv_b")
RULES = DialogueRules(window=WindowSetting(min_turns=3, max_turns=6))


def user(text: str) -> Message:
    return message({"role": "user", "content": text})


def assistant(text: str) -> Message:
    return message({"role": "assistant", "content": text})


@dataclass
class Desk:
    """A store in memory, and everything that writes to it."""

    store: MemoryStore = field(default_factory=MemoryStore)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    now: float = 1000.0
    rules: DialogueRules = RULES

    def __post_init__(self) -> None:
        def clock() -> float:
            self.now += 1
            return self.now

        def name() -> str:
            return f"w{next(self.numbers)}"

        self.dialogues = Dialogues(self.store, LeaseKeeper(self.store, clock=clock), self.rules, clock)
        self.editor = Editor(self.dialogues, self.store, self.rules, clock, name)
        self.forks = Forks(self.editor, self.store)
        self.name = name

    async def talk(
        self, *texts: str, incoming: Incoming | None = None, key: ConversationKey = KEY
    ) -> tuple[bytes, ...]:
        """Turns that a model answers, or the wish for another answer; the last one's prompt."""
        prompt: tuple[bytes, ...] = ()
        for text in texts:
            raw = msgspec.json.encode([{"role": "user", "content": text}])
            ask = Ask(owner=self.name(), on_stop=lambda _: None, on_busy="queue")
            turn = await self.dialogues.open(key, incoming or read_incoming(raw), ask)
            assert isinstance(turn, OpenTurn)
            said = answer({"content": f"{text}!"})
            await turn.commit(Answer(message=said, reply=Reply(model="m", prompt_tokens=1)))
            prompt = turn.prompt.messages
        return prompt

    async def load(self, key: ConversationKey = KEY) -> Conversation:
        found = await self.store.load(key)
        assert found is not None
        return found

    async def said(self, key: ConversationKey = KEY) -> list[list[str]]:
        turns = await self.store.read(key, 0, 10_000)
        return [[msgspec.json.decode(raw)["content"] for raw in turn.messages] for turn in turns]


async def remembered(desk: Desk, covers_to: int) -> None:
    conversation = await desk.load()
    digests = await desk.store.digests(KEY, 0, covers_to)
    memory = Memory(covers_to=covers_to, version=1, summary=f"up to {covers_to}", facts=("f",), at=1.0)
    learned = Learned(memory, conversation.memory_version, 0, b"".join(digests))
    assert await desk.store.remember(KEY, learned)
