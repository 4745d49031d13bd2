"""When the memory is made and when the cut moves to it, over whole dialogues with a scripted model."""

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.compaction import CompactionRule, Instructions, Stretch, due, free, instruction, settled
from history.compactor import Compactor, Outcome
from history.conversation import Conversation, ConversationKey, Memory, Reply
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer, Ask, Ended, OpenTurn
from history.prompt import Prompt
from history.residency import Ages
from history.rules import DialogueRules
from history.window import WindowSetting

KEY = ConversationKey(tenant="t", id="c")
ON = CompactionRule(enabled=True, lead_turns=2)
TEXTS = Instructions(english="Write it down, up to «{last}».", chinese="请写下来，到“{last}”为止。")


class Companion:
    """A conversation whose memory is made by a scripted model, in time or late."""

    def __init__(self, window: WindowSetting, rule: CompactionRule = ON) -> None:
        self.store, self.now = MemoryStore(), 0.0

        def clock() -> float:
            return self.now

        rules = DialogueRules(window=window, compaction=rule)
        keeper = LeaseKeeper(self.store, clock=lambda: self.now)
        self.dialogues = Dialogues(self.store, keeper, rules, clock, residency=Ages(1000, clock))
        self.compactor = Compactor(self.store, rules, TEXTS, lambda: self.now)
        self.told: list[dict[str, Any]] = []
        self.prompts: list[tuple[int, tuple[bytes, ...]]] = []
        self.asked: list[Prompt] = []
        self.ended: Ended | None = None
        self.count = 0

    async def say(self, messages: list[dict[str, Any]] | None = None) -> None:
        """One turn; `messages` instead of a new question."""
        self.count += 1
        question = {"role": "user", "content": f"question {self.count}"}
        said = answer({"content": f"answer {self.count}"})
        ask = Ask(owner=str(self.count), on_stop=lambda _: None, on_busy="queue")
        incoming = read_incoming(msgspec.json.encode(messages or [question]))
        turn = await self.dialogues.open(KEY, incoming, ask)
        assert isinstance(turn, OpenTurn)
        self.prompts.append((turn.layout.cut, (*turn.prompt.messages, said.json)))
        self.told = [
            *(messages or [*self.told, question]),
            {"role": "assistant", "content": f"answer {self.count}"},
        ]
        self.ended = await turn.commit(Answer(message=said, reply=Reply()))

    async def regenerate(self) -> None:
        await self.say(self.told[:-1])

    async def compact(self, text: str = "SUMMARY:\nThey talked.\nFACTS:\n- a fact") -> Outcome | None:
        """What the background does if something is due."""
        assert self.ended is not None
        if self.ended.due is None:
            return None

        async def scribe(_: Conversation, prompt: Prompt) -> str:
            self.asked.append(prompt)
            return text

        return await self.compactor.compact(KEY, self.ended.due, scribe)

    def count_of_turns(self) -> int:
        return len(self.told) // 2

    @property
    def memories(self) -> tuple[Memory, ...]:
        assert self.ended is not None
        return self.ended.conversation.memories


def questions(prompt: tuple[bytes, ...]) -> int:
    return sum(msgspec.json.decode(message)["role"] == "user" for message in prompt)


windows = st.tuples(st.integers(1, 4), st.integers(0, 6)).map(
    lambda pair: WindowSetting(min_turns=pair[0], max_turns=sum(pair))
)
# What happens after each turn: the version is made, is late, says nothing; or the last answer is made anew.
happenings = st.lists(
    st.sampled_from(["made", "made", "made", "late", "empty", "again"]), min_size=1, max_size=60
)


@settings(max_examples=80, deadline=None)
@given(windows, happenings)
def test_the_window_holds_its_promises_whatever_becomes_of_the_memory(
    window: WindowSetting, script: list[str]
) -> None:
    """Never fewer than `min_turns` older turns, never more than one cycle too many, memory and turns meet."""
    companion = Companion(window)

    async def play() -> None:
        for happening in script:
            await (
                companion.regenerate()
                if happening == "again" and len(companion.told) > 2
                else companion.say()
            )
            if happening in ("made", "empty"):
                await companion.compact(*([] if happening == "made" else ["None."]))
            cut, prompt = companion.prompts[-1]
            older = questions(prompt) - 1
            assert older == companion.count_of_turns() - 1 - cut
            assert min(companion.count_of_turns() - 1, window.min_turns) <= older
            assert older <= window.max_turns + 2 * (window.max_turns - window.min_turns + 1)
            covered = [memory.covers_to for memory in companion.memories]
            assert covered == sorted(set(covered))

    asyncio.run(play())


@settings(max_examples=60, deadline=None)
@given(windows, st.integers(1, 60))
def test_with_the_memory_in_time_every_turn_is_in_it_or_in_the_window(
    window: WindowSetting, turns: int
) -> None:
    """The cut is always where the version ends that the prompt shows, and the window keeps its size."""
    companion = Companion(window)

    async def play() -> None:
        for _ in range(turns):
            await companion.say()
            assert await companion.compact() in ("kept", None)
            assert companion.ended is not None
            conversation = companion.ended.conversation
            assert conversation.cut in (0, *(memory.covers_to for memory in conversation.memories))
            assert conversation.turn_count - conversation.cut <= window.max_turns

    asyncio.run(play())


@settings(max_examples=60, deadline=None)
@given(windows, happenings)
def test_prompt_is_a_strict_prefix_of_the_next_between_cuts_with_a_memory_in_it(
    window: WindowSetting, script: list[str]
) -> None:
    """A version that was made in advance changes nothing before the cut."""
    companion = Companion(window)

    async def play() -> None:
        for happening in script:
            await companion.say()
            if happening == "made":
                await companion.compact()

    asyncio.run(play())

    for (cut, before), (next_cut, after) in pairwise(companion.prompts):
        if cut == next_cut:
            assert after[: len(before)] == before


async def test_the_call_that_makes_the_memory_continues_the_live_prompt() -> None:
    """Only the instruction is new, so the node has all but that in its cache."""
    companion = Companion(WindowSetting(min_turns=4, max_turns=8))
    while companion.asked == []:
        await companion.say()
        await companion.compact()

    live = companion.prompts[-1][1]
    assert companion.asked[0].messages[:-1] == live
    assert "question 5" in msgspec.json.decode(companion.asked[0].messages[-1])["content"]


async def test_the_memory_is_in_the_persona_s_message_from_the_cut_on() -> None:
    """One system message, as many templates allow only one, and not a word of it before the cut."""
    companion = Companion(WindowSetting(min_turns=2, max_turns=4))
    for _ in range(6):
        await companion.say()
        await companion.compact("SUMMARY:\nThey met at sea.\nFACTS:\n- Her cat is called Pixel.")

    heads = [(cut, msgspec.json.decode(prompt[0])) for cut, prompt in companion.prompts]
    assert [cut for cut, _ in heads] == [0, 0, 0, 0, 0, 3]
    assert [head["role"] for _, head in heads] == ["user"] * 5 + ["system"]
    assert "They met at sea." in heads[-1][1]["content"]
    assert "- Her cat is called Pixel." in heads[-1][1]["content"]


async def test_a_late_memory_lets_the_window_grow_and_is_taken_when_it_comes() -> None:
    """Nobody waits for it, nothing leaves without it."""
    companion = Companion(WindowSetting(min_turns=2, max_turns=4))
    for _ in range(6):
        await companion.say()
    assert [cut for cut, _ in companion.prompts] == [0] * 6

    assert await companion.compact() == "kept"
    await companion.say()
    await companion.say()

    assert [cut for cut, _ in companion.prompts[-2:]] == [3, 3]
    assert companion.memories[0].covers_to == 3


async def test_without_any_memory_the_window_stays_bounded_and_is_caught_up_with() -> None:
    """A model that is away for long: turns leave, and later versions cover them one cycle at a time."""
    companion = Companion(WindowSetting(min_turns=2, max_turns=4))
    for _ in range(20):
        await companion.say()
    assert companion.prompts[-1][0] > 0
    while await companion.compact() == "kept":
        await companion.say()
        assert companion.ended is not None

    assert companion.memories[-1].covers_to >= companion.ended.conversation.cut


@pytest.mark.parametrize(
    "text",
    ["", "None.", "无。", "I'm sorry, but I can't help with that.", "抱歉，我无法这样做。", "FACTS:\n- none"],
)
async def test_an_empty_answer_or_a_refusal_erases_nothing(text: str) -> None:
    """The old version stands, and its turns stay in the window."""
    companion = Companion(WindowSetting(min_turns=2, max_turns=4))
    for _ in range(5):
        await companion.say()
        await companion.compact()
    before = companion.memories
    for _ in range(2):
        await companion.say()
        assert await companion.compact(text) in ("empty", None)

    assert companion.memories == before


async def test_a_new_version_keeps_the_old_facts() -> None:
    """A fact that the model does not repeat is not lost; one it repeats stands once."""
    companion = Companion(WindowSetting(min_turns=1, max_turns=2))
    texts = iter(["SUMMARY:\nOne.\nFACTS:\n- a\n- b", "SUMMARY:\nTwo.\nFACTS:\n- b\n- c"])
    versions: list[Memory] = []
    while len(versions) < 2:
        await companion.say()
        if companion.ended and companion.ended.due:
            await companion.compact(next(texts))
            stored = await companion.store.load(KEY)
            assert stored is not None
            versions = list(stored.memories)

    assert [(one.summary, one.facts) for one in versions] == [("One.", ("a", "b")), ("Two.", ("a", "b", "c"))]


async def test_a_cold_conversation_takes_the_waiting_version_for_free() -> None:
    """Its KV is gone, so a cut costs nothing now and saves one later."""
    companion = Companion(WindowSetting(min_turns=2, max_turns=6))
    while companion.asked == []:
        await companion.say()
        await companion.compact()
    warm = companion.prompts[-1][0]
    covers_to = (await companion.store.load(KEY)).memories[0].covers_to  # type: ignore[union-attr]  # it was stored
    free_cut = free(
        0, 7, (Memory(covers_to=5, version=1, summary="s"),), WindowSetting(min_turns=2, max_turns=6), ON
    )

    assert (warm, free_cut) == (0, 5)
    assert (
        free(
            0, 6, (Memory(covers_to=5, version=1, summary="s"),), WindowSetting(min_turns=2, max_turns=6), ON
        )
        == 0
    )
    assert covers_to == 5


@given(st.lists(st.integers(1, 400), max_size=40), st.integers(200, 2000), st.booleans())
def test_the_token_ceiling_wins_over_a_memory_that_is_late(
    sizes: list[int], ceiling: int, waits: bool
) -> None:
    """An answer must stay possible."""
    window = WindowSetting(min_turns=2, max_turns=30, max_tokens=ceiling)
    memories = (Memory(covers_to=3, version=1, summary="s"),) if waits else ()

    cut = settled(0, sizes, memories, window, ON)

    assert sum(sizes[cut:]) <= ceiling


def test_the_memory_is_due_lead_turns_before_the_cut() -> None:
    """`min_turns` 4, `max_turns` 8: a cut drops five; with a lead of two it is made when six are there."""
    window = WindowSetting(min_turns=4, max_turns=8)

    found = [due(0, [0] * count, (), window, ON) for count in range(9)]

    assert found == [None] * 6 + [Stretch(start=0, covers_to=5)] * 3


def test_the_instruction_speaks_the_language_of_the_dialogue() -> None:
    """And says which turn is the last to be covered, at most 60 characters of it, on one line."""
    english = instruction(TEXTS, last="so\nlong " * 50, sample="Hello, how are you?", rule=ON)
    chinese = instruction(TEXTS, last="你好", sample="你好，今天过得怎么样？", rule=ON)

    content = msgspec.json.decode(english)["content"]
    assert content.startswith("Write it down, up to «so long so long")
    assert len(content) < 100
    assert msgspec.json.decode(chinese)["content"] == "请写下来，到“你好”为止。"
