"""Recall on its real way: what a conversation's prompt says of turns that left the window."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from gateway.advise.needles.generator import cases, turns
from history.compaction import CompactionRule, Instructions, Stretch
from history.compactor import Compactor
from history.conversation import Conversation, ConversationKey, Reply, Tailed
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.kept_tail import shown_messages, without_tail
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from history.passage import tokens_of
from history.ports import Begun, Change, Claim
from history.prompt import Prompt
from history.recaller import RecallCacheRule, Recaller
from history.rules import DialogueRules
from history.tail import TailRule, with_tail
from history.window import WindowSetting, stateless_cut

RULES = DialogueRules(compaction=CompactionRule(enabled=False))
FACT = "My sister's wedding is in Oslo on the ninth of May."
QUESTION = "Where was my sister's wedding going to be?"


class Past:
    """Conversations with a long past, and what is asked of them."""

    def __init__(self, rules: DialogueRules = RULES) -> None:
        self.rules, self.now = rules, 1e9
        self.store = MemoryStore()
        self.recaller = Recaller(self.store.read, rules.recall, RecallCacheRule(wait_s=30), time.monotonic)
        keeper = LeaseKeeper(self.store, clock=lambda: self.now)
        self.dialogues = Dialogues(self.store, keeper, rules, lambda: self.now, recaller=self.recaller)
        self.count = 0

    async def fill(self, key: ConversationKey, said: list[tuple[str, str]]) -> None:
        """Everything that was said, in one commit, cut as it would have been."""
        await self.write(key, said, cut=stateless_cut(len(said), self.rules.window))

    async def write(self, key: ConversationKey, said: Any, *, cut: int) -> None:
        begun = await self.store.begin(key, Claim(owner="past", lease_ms=1000, queue_limit=1))
        assert isinstance(begun, Begun)
        change = Change(keep=0, append=tuple(said), at=self.now, cut=cut)
        await self.store.commit(key, begun.lease, change)

    async def ask(self, key: ConversationKey, *messages: dict[str, Any], **wishes: Any) -> OpenTurn:
        self.count += 1
        ask = Ask(owner=str(self.count), on_stop=lambda _: None, on_busy="queue", **wishes)
        turn = await self.dialogues.open(key, read_incoming(msgspec.json.encode(messages)), ask)
        assert isinstance(turn, OpenTurn)
        return turn

    async def say(self, key: ConversationKey, text: str, reply: str, *, tokens: int = 40) -> OpenTurn:
        turn = await self.ask(key, {"role": "user", "content": text})
        said = Answer(message=answer({"content": reply}), reply=Reply(completion_tokens=tokens))
        self.dialogues.left(await turn.commit(said))
        return turn


KEY = ConversationKey("t", "c")


@pytest.fixture
async def past() -> AsyncIterator[Past]:
    """A conversation in which a fact was said thirty turns before the window."""
    one = Past(
        DialogueRules(
            window=WindowSetting(min_turns=2, max_turns=4), compaction=CompactionRule(enabled=False)
        )
    )
    await one.say(KEY, FACT, "How lovely!")
    for number in range(28):
        await one.say(KEY, f"Today I fed {number} ducks by the pond.", "They were glad.")
    yield one
    await one.recaller.close()


def last_user(turn: OpenTurn) -> str:
    content: str = msgspec.json.decode(turn.prompt.messages[-1])["content"]
    return content


async def test_facts_of_long_ago_are_in_the_prompt_that_answers() -> None:
    """200 seeded cases, Chinese and English, through the store, the window and the index."""
    one, shown, sizes = Past(), [], []
    for number, case in enumerate(cases(0)):
        key = ConversationKey("t", str(number))
        cut = stateless_cut(len(case.said), one.rules.window)
        await one.write(key, turns(case.said), cut=cut)
        turn = await one.ask(key, {"role": "user", "content": case.question})
        shown.append(any(case.answer in message.decode() for message in map(unescaped, turn.prompt.messages)))
        sizes.append(tokens_of(turn.layout.tail))
        await turn.release()
        one.recaller.forget(key)
    await one.recaller.close()

    assert len(shown) == 200
    assert sum(shown) >= 190
    assert max(sizes) <= one.rules.recall.max_tokens


def unescaped(message: bytes) -> bytes:
    return msgspec.json.decode(message)["content"].encode()  # type: ignore[no-any-return]  # text only, here


async def test_what_comes_back_stands_behind_the_message_and_nothing_else_changes(past: Past) -> None:
    """Everything before it is the prefix that the node has; the question itself comes first."""
    before = await past.say(KEY, "Good evening.", "Hello.")
    turn = await past.ask(KEY, {"role": "user", "content": QUESTION})

    assert turn.prompt.messages[: len(before.prompt.messages)] == before.prompt.messages
    assert last_user(turn).startswith(QUESTION + "\n\n<recalled>\n")
    assert "Oslo" in last_user(turn)


async def test_a_message_that_refers_to_nothing_gets_no_tail(past: Past) -> None:
    """Small talk costs nothing."""
    turn = await past.ask(KEY, {"role": "user", "content": "Hi!"})

    assert turn.layout.tail == ""
    assert last_user(turn) == "Hi!"


async def test_what_is_still_in_the_window_is_not_said_twice(past: Past) -> None:
    """The newest turns stand there verbatim."""
    await past.say(KEY, "My brother's wedding is in Lima.", "I see.")
    turn = await past.ask(KEY, {"role": "user", "content": "Where is my brother's wedding going to be?"})

    assert "Lima" not in turn.layout.tail


@pytest.mark.parametrize(("price", "stays"), [(0.0, True), (0.9, False)])
async def test_a_tail_stays_or_goes_by_what_it_costs(price: float, stays: bool) -> None:
    """Kept, the next prompt continues this one; dropped, it has the plain message. Both align."""
    rules = DialogueRules(
        window=WindowSetting(min_turns=2, max_turns=4),
        compaction=CompactionRule(enabled=False),
        tail=TailRule(cached_price=price),
    )
    past = Past(rules)
    await past.say(KEY, FACT, "How lovely!")
    for number in range(8):
        await past.say(KEY, f"Today I fed {number} ducks by the pond.", "They were glad.")
    asked = await past.say(KEY, QUESTION, "In Oslo.")
    following = await past.ask(KEY, {"role": "user", "content": "Thank you."})
    await following.release()

    said = msgspec.json.decode(following.prompt.messages[-3])["content"]
    assert asked.layout.tail != ""
    assert (said == last_user(asked)) is stays
    assert said.partition("\n\n<recalled>\n")[0] == QUESTION
    dialogue = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "In Oslo."},
        {"role": "user", "content": "Thank you."},
    ]
    aligned = await past.ask(KEY, *dialogue)
    assert aligned.prompt.messages == following.prompt.messages
    await past.recaller.close()


async def test_a_kept_tail_goes_with_the_next_cut() -> None:
    """Until then every prompt continues the one before it; afterwards none shows what was recalled before."""
    rules = DialogueRules(
        window=WindowSetting(min_turns=4, max_turns=8),
        compaction=CompactionRule(enabled=False),
        tail=TailRule(cached_price=0.0),
    )
    past = Past(rules)
    await past.say(KEY, FACT, "How lovely!")
    for number in range(9):
        await past.say(KEY, f"Today I fed {number} ducks by the pond.", "They were glad.")
    turns = [await past.say(KEY, QUESTION, "In Oslo.")]
    while turns[-1].layout.cut == turns[0].layout.cut:
        turns.append(await past.say(KEY, "Thank you.", "You are welcome."))
    *before, after = turns
    await past.recaller.close()

    assert before[0].layout.tail != ""
    assert len(before) > 1
    for one, following in pairwise(before):
        assert following.prompt.messages[: len(one.prompt.messages)] == one.prompt.messages
    said = [msgspec.json.decode(message)["content"] for message in after.prompt.messages]
    assert QUESTION in said
    assert not any("<recalled>" in text for text in said)


async def test_the_instruction_of_a_memory_quotes_no_tail() -> None:
    """It names the last turn by what was said in it; a tail is nothing that anybody said."""
    rules = DialogueRules(window=WindowSetting(min_turns=2, max_turns=4), tail=TailRule(cached_price=0.0))
    past, asked = Past(rules), []
    for text in ("Hi.", "And now?"):
        ended = await (await past.ask(KEY, {"role": "user", "content": text}, note="Luna is tired.")).commit(
            Answer(message=answer({"content": "Well."}), reply=Reply(completion_tokens=40))
        )

    async def scribe(_: Conversation, prompt: Prompt) -> str:
        asked.append(msgspec.json.decode(prompt.messages[-1])["content"])
        return "SUMMARY:\nThey met."

    compactor = Compactor(past.store, rules, Instructions("Up to «{last}».", "到“{last}”为止。"), time.time)
    assert await compactor.compact(KEY, Stretch(0, ended.conversation.turn_count), scribe) == "kept"
    assert asked == ["Up to «And now?»."]


@pytest.mark.parametrize("is_list", [False, True], ids=["text", "parts"])
@pytest.mark.parametrize("text", ["Where?", "A line\n\n<note>\nmine\n</note>", ""])
def test_taking_a_tail_off_leaves_what_was_said(text: str, is_list: bool) -> None:
    """Also where somebody wrote what looks like a tail: only the one that was added goes, and only once."""
    content = [{"type": "text", "text": text}] if is_list else text
    message = msgspec.json.encode({"role": "user", "content": content})
    tail = "<recalled>\nuser: Oslo 🚲\n</recalled>"
    said = with_tail(message, tail)

    assert said != message
    assert message == without_tail(said, len(tail))
    assert message == without_tail(message, len(tail))
    assert said == without_tail(said, len(tail) - 1)
    assert (said,) == shown_messages((said,), Tailed(0, len(tail), 7), 7)
    assert (message,) == tuple(shown_messages((said,), Tailed(0, len(tail), 7), 8))
    assert (said,) == shown_messages((said,), None, 8)


async def test_notes_lore_and_the_time_ride_in_the_same_tail() -> None:
    """What the client or the configuration supplies; each in its own block."""
    past = Past(DialogueRules(tail=TailRule(gap_after_s=3600)))
    await past.say(KEY, "Good night.", "Sleep well.")
    past.now += 3 * 86_400
    message = {"role": "user", "content": "Good morning."}

    turn = await past.ask(KEY, message, note="Luna is tired.", lore=("The harbour is frozen.",))

    assert last_user(turn).split("\n") == [
        "Good morning.",
        "",
        "<lore>",
        "The harbour is frozen.",
        "</lore>",
        "<note>",
        "Luna is tired.",
        "</note>",
        "<time>",
        "Time since the last message: 3 days.",
        "</time>",
    ]
    await past.recaller.close()


async def test_an_image_keeps_its_place_beside_a_tail(past: Past) -> None:
    """Content parts stay as they are; the tail is a text part of its own."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    turn = await past.ask(KEY, {"role": "user", "content": [{"type": "text", "text": QUESTION}, image]})

    parts = msgspec.json.decode(turn.prompt.messages[-1])["content"]
    assert parts[:2] == [{"type": "text", "text": QUESTION}, image]
    assert "Oslo" in parts[2]["text"]


async def test_turns_replaced_by_a_branch_are_never_recalled(past: Past) -> None:
    """The old branch is kept for people, not for prompts."""
    await (await past.ask(KEY, {"role": "user", "content": QUESTION})).release()
    begun = await past.store.begin(KEY, Claim(owner="editor", lease_ms=1000, queue_limit=1))
    assert isinstance(begun, Begun)
    turns_now = await past.store.read(KEY, 1, begun.conversation.turn_count)
    first = (await past.store.read(KEY, 0, 1))[0]
    edited = msgspec.structs.replace(
        first, messages=(b'{"role":"user","content":"My sister\'s wedding is in Rome."}',)
    )
    change = Change(keep=0, append=(edited, *turns_now), at=1.0, save_branch=True, cut=begun.conversation.cut)
    await past.store.commit(KEY, begun.lease, change)

    turn = await past.ask(KEY, {"role": "user", "content": QUESTION})

    assert "Rome" in turn.layout.tail
    assert "Oslo" not in turn.layout.tail
    await turn.release()


def test_recall_waits_for_nobody_too_long() -> None:
    """A store that is slow to give the past costs a message its recall, not its answer."""

    class Slow(MemoryStore):
        async def read(self, key: ConversationKey, start: int, stop: int) -> Any:
            if start < 5:
                await asyncio.sleep(60)
            return await super().read(key, start, stop)

    async def play() -> str:
        past = Past(
            DialogueRules(
                window=WindowSetting(min_turns=2, max_turns=4), compaction=CompactionRule(enabled=False)
            )
        )
        past.store = Slow()
        past.recaller = Recaller(past.store.read, RULES.recall, RecallCacheRule(wait_s=0.05), time.monotonic)
        past.dialogues = Dialogues(
            past.store,
            LeaseKeeper(past.store, clock=lambda: 0.0),
            past.rules,
            lambda: past.now,
            recaller=past.recaller,
        )
        for number in range(10):
            turn = await past.ask(KEY, {"role": "user", "content": f"My sister wears hat {number}."})
            await turn.commit(Answer(message=answer({"content": "I see."}), reply=Reply()))
        turn = await past.ask(KEY, {"role": "user", "content": "Which hat did my sister wear?"})
        await past.recaller.close()
        return turn.layout.tail

    assert asyncio.run(play()) == ""
