"""Examples against the prompts that the product itself has laid out: the same turns, memory and tails."""

import asyncio
import json
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.compaction import CompactionRule
from history.conversation import ConversationKey, Memory, Reply
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from history.ports import Learned
from history.rules import DialogueRules
from history.window import WindowSetting
from training.datasets.clean import Cleaner
from training.datasets.rules import DatasetRules
from training.datasets.sources import stored_ids, stored_talks
from training.datasets.stored import Reading, Served
from training.datasets.talk import Talk

KEY = ConversationKey("t", "c")
PERSONA = {"role": "system", "content": "You are Mira."}
Prompt = tuple[str, list[tuple[str, str]]]


@dataclass
class Table:
    """A conversation that is talked through the product's own dialogues; keeps every prompt it has sent."""

    low: int
    more: int
    compacts: bool = False
    store: MemoryStore = field(default_factory=MemoryStore)
    prompts: list[Prompt] = field(default_factory=list)
    tailed: list[bool] = field(default_factory=list)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.rules = DialogueRules(
            window=WindowSetting(min_turns=self.low, max_turns=self.low + self.more),
            compaction=CompactionRule(enabled=self.compacts, lead_turns=2),
        )
        self.dialogues = Dialogues(
            self.store, LeaseKeeper(self.store, clock=self.clock), self.rules, self.clock
        )

    def clock(self) -> float:
        self.now += 1
        return self.now

    async def say(self, text: str, note: str = "", tokens: int = 40) -> None:
        number = len(self.prompts)
        ask = Ask(owner=f"w{number}", on_stop=lambda _: None, on_busy="queue", note=note, user="ada")
        raw = (
            [PERSONA, {"role": "user", "content": text}]
            if not number
            else [{"role": "user", "content": text}]
        )
        turn = await self.dialogues.open(KEY, read_incoming(msgspec.json.encode(raw)), ask)
        assert isinstance(turn, OpenTurn)
        said = answer({"content": f"answer {number} to {text}"})
        self.prompts.append(as_read([json.loads(one) for one in (*turn.prompt.messages, said.json)]))
        reply = Reply(model="m", completion_tokens=tokens)
        self.tailed.append(bool(turn.layout.tail) and not turn.continues(said, tokens))
        ended = await turn.commit(Answer(message=said, reply=reply))
        if ended.due is not None:
            await self.remember(ended.due.start, ended.due.covers_to)

    async def remember(self, start: int, covers_to: int) -> None:
        """What the compactor would do in the background, in time."""
        conversation = await self.store.load(KEY)
        assert conversation is not None
        digests = await self.store.digests(KEY, start, covers_to)
        version = conversation.memories[-1].version + 1 if conversation.memories else 1
        memory = Memory(
            covers_to, version, f"They talked about {covers_to} things.", ("Ada likes tea.",), 1.0
        )
        assert await self.store.remember(
            KEY, Learned(memory, conversation.memory_version, start, b"".join(digests))
        )

    async def agree(self) -> None:
        """The user lets us train on it."""
        assert await self.store.describe(KEY, b'{"training_consent":"true"}')

    async def examples(self) -> list[Served]:
        """What an export makes of it."""
        await self.agree()
        ids = await stored_ids(self.store, "t")
        talks = [talk async for talk in stored_talks(self.store, "t", ids)]
        assert len(talks) == 1
        assert isinstance(talks[0], Talk)
        rules = DatasetRules(window=self.rules.window.rule())
        return list(Reading(talks[0], rules, Cleaner(rules)).examples())


def as_read(messages: list[dict[str, str]]) -> Prompt:
    """The system text, and who said what."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    return system, [(one["role"], one["content"]) for one in messages if one["role"] != "system"]


def as_trained(served: Served) -> Prompt:
    return served.example.system, [(one.role, one.text) for one in served.example.lines]


@settings(max_examples=30)
@given(st.integers(1, 25), st.integers(1, 4), st.integers(0, 4), st.booleans())
def test_each_example_is_the_prompt_that_was_served(count: int, low: int, more: int, compacts: bool) -> None:
    """Every answer once, with and without a memory, before the first cut and behind many."""
    table = Table(low, more, compacts)

    async def talk() -> list[Served]:
        for number in range(count):
            await table.say(f"message {number}")
        return await table.examples()

    made = asyncio.run(talk())
    assert list(range(count)) == [one.turn for one in made]
    known = [one for one in made if one.certainty != "memory_lost"]
    assert [table.prompts[one.turn] for one in known] == [as_trained(one) for one in known]
    assert all(one.certainty == "exact" for one in made) or count > low + more


def test_what_is_no_longer_known_is_said() -> None:
    """Of many versions of the memory the newest few are stored: older prompts showed one that is gone."""
    table = Table(2, 1, compacts=True)

    async def talk() -> list[Served]:
        for number in range(40):
            await table.say(f"message {number}")
        return await table.examples()

    made = asyncio.run(talk())
    lost = [one for one in made if one.certainty == "memory_lost"]
    assert lost
    for one in lost:
        system, said = table.prompts[one.turn]
        assert "They talked about" in system
        assert ("You are Mira.", said) == as_trained(one)


@pytest.mark.parametrize("tokens", [2000, 1])
def test_a_tail_that_was_kept_stands_in_every_prompt_of_its_cut(tokens: int) -> None:
    """And in none behind it; one that was dropped is not stored, which is the one thing that is lost."""
    table = Table(2, 4)

    async def talk() -> list[Served]:
        for number in range(20):
            note = f"Mira is tired, says note {number}. " * 3 if number % 3 == 1 else ""
            await table.say(f"message {number}", note=note, tokens=tokens)
        return await table.examples()

    made = asyncio.run(talk())
    dropped = {at for at, is_dropped in enumerate(table.tailed) if is_dropped}
    assert (tokens == 1) is bool(dropped)
    assert all(table.prompts[one.turn] == as_trained(one) for one in made if one.turn not in dropped)
    assert any("<note>" in text for _, text in as_trained(made[2])[1]) is not bool(dropped)
