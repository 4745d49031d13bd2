"""A message whose KV has gone is cut at once; the memory catches up, and few turns wait for it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.compaction import CompactionRule, Instructions, free
from history.compactor import Compactor
from history.conversation import Binding, Conversation, ConversationKey, Memory, Reply
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer, Ask, Ended, OpenTurn
from history.prompt import Prompt
from history.residency import Retained
from history.rules import DialogueRules
from history.window import WindowSetting

KEY = ConversationKey("t", "c")
TEXTS = Instructions(english="Note {last} in {words} words, {facts} facts.", chinese="{last}{words}{facts}")


class Nodes:
    """Caches of which a test says whether they still hold what was put there."""

    is_empty = False

    def is_gone(self, binding: Binding) -> bool:
        del binding
        return self.is_empty

    def retained(self) -> Retained:
        return Retained(100.0, is_full=True)


class Talk:
    """A conversation over such nodes."""

    def __init__(self, setting: WindowSetting, rule: CompactionRule) -> None:
        self.store, self.nodes, self.now = MemoryStore(), Nodes(), 0.0
        rules = DialogueRules(window=setting, compaction=rule)
        keeper = LeaseKeeper(self.store, clock=lambda: self.now)
        self.dialogues = Dialogues(self.store, keeper, rules, lambda: self.now, residency=self.nodes)
        self.compactor = Compactor(self.store, rules, TEXTS, lambda: self.now)
        self.asked: list[Prompt] = []
        self.ended: Ended | None = None

    async def say(self, *, is_cold: bool = False) -> OpenTurn:
        """One turn, ten seconds after the last."""
        self.now += 10.0
        self.nodes.is_empty = is_cold
        text = msgspec.json.encode([{"role": "user", "content": f"question at {self.now}"}])
        ask = Ask(owner=str(self.now), on_stop=lambda _: None, on_busy="queue")
        turn = await self.dialogues.open(KEY, read_incoming(text), ask)
        assert isinstance(turn, OpenTurn)
        reply = Reply(prompt_tokens=1000, completion_tokens=100)
        bound = Binding(node="n", prefix=b"p", tokens=1100, at=self.now)
        said = answer({"content": "indeed"})
        self.ended = await turn.commit(Answer(message=said, reply=reply, binding=bound))
        return turn

    async def remember(self) -> None:
        """What the background does if something is due."""
        assert self.ended is not None
        if self.ended.due is not None:
            await self.compactor.compact(KEY, self.ended.due, self._scribe)

    async def _scribe(self, conversation: Conversation, prompt: Prompt) -> str:
        del conversation
        self.asked.append(prompt)
        return "SUMMARY:\nThey talked.\nFACTS:\n- a fact"


async def test_cold_message_shows_the_least_turns_and_a_warm_one_stays_as_it_was() -> None:
    talk = Talk(WindowSetting(min_turns=4, max_turns=20), CompactionRule(enabled=False))
    for _ in range(9):
        await talk.say()
    warm, cold, after = await talk.say(), await talk.say(is_cold=True), await talk.say()
    assert [len(one.layout.turns) for one in (warm, cold, after)] == [9, 4, 5]
    assert cold.layout.cut == after.layout.cut == 6


async def test_the_memory_catches_up_once_as_many_have_left_as_may() -> None:
    talk = Talk(WindowSetting(min_turns=4, max_turns=20), CompactionRule(lag_turns=3))
    for _ in range(6):
        await talk.say()
        await talk.remember()
    await talk.say(is_cold=True)
    await talk.remember()
    assert talk.asked == []
    cut_twice = await talk.say(is_cold=True)
    assert (cut_twice.layout.cut, len(cut_twice.layout.turns)) == (3, 4)
    assert (await talk.say(is_cold=True)).layout.cut == 3

    await talk.remember()
    assert len(talk.asked) == 1
    shows = await talk.say(is_cold=True)
    assert (shows.layout.cut, shows.layout.shows) == (5, 3)


async def test_what_is_warmed_for_a_cold_conversation_is_what_its_next_message_finds() -> None:
    """Warming makes the KV be there, so nothing is cut for free before it nor after it."""
    talk = Talk(WindowSetting(min_turns=4, max_turns=20), CompactionRule(enabled=False))
    for _ in range(9):
        await talk.say()
    talk.nodes.is_empty = True
    outlook = await talk.dialogues.outlook(KEY)
    assert outlook is not None
    turn = await talk.say()
    assert turn.prompt.messages[: len(outlook.prompt.messages)] == outlook.prompt.messages


async def test_without_lag_a_cut_waits_for_its_memory() -> None:
    talk = Talk(WindowSetting(min_turns=4, max_turns=20), CompactionRule(lag_turns=0))
    for _ in range(9):
        await talk.say()
    assert (await talk.say(is_cold=True)).layout.cut == 0


async def test_a_new_length_is_taken_at_the_cut_and_kept_with_the_conversation() -> None:
    talk = Talk(WindowSetting(min_turns=4, max_turns="auto"), CompactionRule(enabled=False))
    grown = [(await talk.say()).layout.window.max_turns for _ in range(3)]
    assert grown == [8, 8, 8]
    talk.dialogues.growth.find(talk.nodes.retained())
    found = talk.dialogues.growth.newest().max_turns
    assert found != 8
    assert [(await talk.say()).layout.window.max_turns for _ in range(4)] == [8, 8, 8, 8]
    assert (await talk.say(is_cold=True)).layout.window.max_turns == 8
    assert (await talk.say()).layout.window.max_turns == found


@pytest.mark.parametrize("policy", ["all", "last_n"])
def test_other_policies_cut_nothing_for_free(policy: str) -> None:
    setting = WindowSetting(policy=policy, min_turns=2, max_turns=4)  # type: ignore[arg-type] # one of two
    assert free(3, 9, (), setting.rule(), CompactionRule()) == 3


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 120), st.integers(1, 20), st.integers(0, 12))
def test_a_free_cut_leaves_the_least_turns_and_few_that_nothing_covers(
    cut: int, count: int, covers_to: int, least: int, lag: int
) -> None:
    memories = (Memory(covers_to=covers_to, version=1, summary="s"),) if covers_to else ()
    rule = WindowSetting(min_turns=least, max_turns=least + 10).rule()
    moved = free(cut, count, memories, rule, CompactionRule(lag_turns=lag))
    assert moved >= cut
    if moved > cut:
        assert cut + count - moved >= least
        assert moved <= covers_to + min(lag, least)
        assert not memories or moved >= covers_to
