"""Dialogues turn by turn, over the memory store: what the model sees and what is kept."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.compaction import CompactionRule
from history.conversation import ConversationKey, Reply
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from history.rules import DialogueRules, OnBusy
from history.window import WindowSetting

KEY = ConversationKey(tenant="t", id="c")

text = st.text(max_size=40) | st.just("") | st.integers(1, 3).map(lambda n: "lang \u4f60\u597d " * 500 * n)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text("ab1", min_size=1, max_size=3),
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": st.just("f"), "arguments": st.just('{"x": 1}')}),
        }
    ),
    min_size=1,
    max_size=2,
)
exchange = st.fixed_dictionaries({"user": text, "calls": st.none() | calls, "answer": text})


class Table:
    """A dialogue with a scripted model: says what it is told and remembers every prompt."""

    def __init__(self, rule: WindowSetting) -> None:
        self.store = MemoryStore()
        keeper = LeaseKeeper(self.store, clock=lambda: 0.0)
        self.dialogues = Dialogues(
            self.store,
            keeper,
            DialogueRules(window=rule, compaction=CompactionRule(enabled=False)),
            lambda: 0.0,
        )
        self.prompts: list[tuple[int, tuple[bytes, ...]]] = []
        self.asked = 0

    async def open(
        self, messages: list[dict[str, Any]], on_busy: OnBusy = "queue", **wishes: Any
    ) -> OpenTurn:
        self.asked += 1
        ask = Ask(owner=str(self.asked), on_stop=lambda _: None, on_busy=on_busy, **wishes)
        turn = await self.dialogues.open(KEY, read_incoming(msgspec.json.encode(messages)), ask)
        assert isinstance(turn, OpenTurn)
        return turn

    async def say(self, messages: list[dict[str, Any]], reply: dict[str, Any], tokens: int = 0) -> OpenTurn:
        turn = await self.open(messages)
        said = answer(reply)
        self.prompts.append((turn.layout.cut, (*turn.prompt.messages, said.json)))
        await turn.commit(Answer(message=said, reply=Reply(prompt_tokens=tokens, completion_tokens=tokens)))
        return turn

    async def play(self, one: dict[str, Any]) -> None:
        """A user message, perhaps a tool call and its result, and the answer."""
        user = [{"role": "user", "content": one["user"]}]
        if one["calls"]:
            await self.say(user, {"tool_calls": one["calls"]})
            user = [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in one["calls"]]
        await self.say(user, {"content": one["answer"]})


def turns_in(prompt: Sequence[bytes]) -> int:
    return sum(msgspec.json.decode(message)["role"] == "user" for message in prompt)


@settings(max_examples=60, deadline=None)
@given(st.lists(exchange, min_size=1, max_size=20), st.integers(1, 4), st.integers(0, 4))
def test_prompt_is_a_strict_prefix_of_the_next_between_cuts(
    script: list[dict[str, Any]], low: int, more: int
) -> None:
    """The invariant that everything else is built on, for tool calls, any text, empty and long messages."""
    table = Table(WindowSetting(min_turns=low, max_turns=low + more))

    async def play() -> None:
        for one in script:
            await table.play(one)

    asyncio.run(play())

    for (cut, before), (next_cut, after) in pairwise(table.prompts):
        if cut == next_cut:
            assert after[: len(before)] == before
            assert len(after) > len(before)


@settings(max_examples=60, deadline=None)
@given(st.lists(exchange, min_size=1, max_size=25), st.integers(1, 4), st.integers(0, 4))
def test_newest_turns_are_always_in_the_prompt(script: list[dict[str, Any]], low: int, more: int) -> None:
    """At least `min_turns` complete turns before the new message, never more than `max_turns`."""
    table = Table(WindowSetting(min_turns=low, max_turns=low + more))

    async def play() -> None:
        for index, one in enumerate(script):
            await table.play(one)
            _, prompt = table.prompts[-1]
            assert min(index, low) <= turns_in(prompt) - 1 <= low + more
            assert msgspec.json.decode(prompt[-1])["content"] == one["answer"]

    asyncio.run(play())


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-12, 4), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from(["stepped", "last_n"]),
)
def test_newest_turns_are_in_the_prompt_of_every_branch(
    moves: list[int], low: int, more: int, policy: Literal["stepped", "last_n"]
) -> None:
    """An edit or a regeneration anywhere, above the cut or just behind it, shows enough turns."""
    table = Table(WindowSetting(policy=policy, min_turns=low, max_turns=low + more))
    least = low if policy == "stepped" else low + more

    async def play() -> None:
        told: list[dict[str, Any]] = []
        for number, move in enumerate(moves):
            kept = told if move >= 0 else told[: max(0, len(told) // 2 + move) * 2]
            sent = [*kept, {"role": "user", "content": f"question {number}"}]
            # Without an assistant message it is not a dialogue to align but a new message.
            if kept == [] and told:
                continue
            said = {"role": "assistant", "content": f"answer {number}"}
            await table.say(sent, said)
            cut, prompt = table.prompts[-1]
            older = len(kept) // 2
            assert min(older, least) <= turns_in(prompt) - 1 <= low + more
            assert [msgspec.json.decode(one) for one in prompt] == [*sent, said][cut * 2 :]
            told = [*sent, said]

    asyncio.run(play())


async def test_regenerating_right_after_a_cut_asks_with_the_very_same_prompt() -> None:
    """The cut goes back to where it was when the answer was made, so that its KV is still of use."""
    table = Table(WindowSetting(min_turns=2, max_turns=4))
    told: list[dict[str, Any]] = []
    for number in range(5):
        told.append({"role": "user", "content": f"question {number}"})
        await table.say(told[-1:], {"role": "assistant", "content": f"answer {number}"})
        told.append({"role": "assistant", "content": f"answer {number}"})
    stored = await table.store.load(KEY)
    await table.say(told[:-1], {"role": "assistant", "content": "another answer"})

    assert stored is not None
    assert stored.cut == 3
    assert table.prompts[-1][1][:-1] == table.prompts[-2][1][:-1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=30), st.integers(200, 1500))
def test_window_fits_the_ceiling_by_the_engines_own_counts(costs: list[int], ceiling: int) -> None:
    """Turns are cut by what they were measured to cost."""
    table = Table(WindowSetting(min_turns=2, max_turns=50, max_tokens=ceiling))

    async def play() -> None:
        for cost in costs:
            turn = await table.say([{"role": "user", "content": "x" * 50}], {"content": "y" * 50}, cost)
            shown = sum(one.tokens for one in turn.layout.turns)
            assert shown <= ceiling

    asyncio.run(play())


async def test_persona_stays_and_a_changed_one_starts_an_epoch() -> None:
    """An identical system message is ignored, another one replaces it and is counted."""
    table = Table(WindowSetting())
    luna, nova = ({"role": "system", "content": name} for name in ("Luna", "Nova"))

    await table.say([luna, {"role": "user", "content": "1"}], {"content": "a"})
    await table.say([luna, {"role": "user", "content": "2"}], {"content": "b"})
    await table.say([{"role": "user", "content": "3"}], {"content": "c"})
    same = await table.store.load(KEY)
    await table.say([nova, {"role": "user", "content": "4"}], {"content": "d"})
    changed = await table.store.load(KEY)

    assert same is not None
    assert changed is not None
    assert (same.epoch, changed.epoch) == (0, 1)
    assert [b"Luna" in table.prompts[2][1][0], b"Nova" in table.prompts[3][1][0]] == [True, True]
    assert sum(b'"system"' in message for message in table.prompts[3][1]) == 1


async def test_greeting_and_proactive_message_are_turns_without_a_user() -> None:
    """A lone system message lets the character speak first."""
    table = Table(WindowSetting())

    await table.say([{"role": "system", "content": "Luna"}], {"content": "Hello, stranger."})
    await table.say([{"role": "user", "content": "hi"}], {"content": "How are you?"})

    roles = [msgspec.json.decode(message)["role"] for message in table.prompts[1][1]]
    assert roles == ["system", "assistant", "user", "assistant"]


async def test_tool_call_and_result_are_one_turn() -> None:
    """A cut can never separate a call from its result."""
    table = Table(WindowSetting(min_turns=1, max_turns=1))
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    await table.say([{"role": "user", "content": "weather?"}], {"tool_calls": [call]})
    await table.say([{"role": "tool", "tool_call_id": "1", "content": "sunny"}], {"content": "Sunny."})

    stored = await table.store.load(KEY)
    assert stored is not None
    assert stored.turn_count == 1
    assert len((await table.store.read(KEY, 0, 1))[0].messages) == 4


async def test_restart_on_an_idle_conversation_merges_no_old_broken_turn() -> None:
    """Only a turn that this message interrupted is answered together with it."""
    table = Table(WindowSetting())
    broken = await table.open([{"role": "user", "content": "Tell me a story."}])
    await broken.commit(Answer(message=answer({"content": "Once"}), reply=Reply(), status="incomplete"))

    later = await table.open([{"role": "user", "content": "Good morning."}], on_busy="restart")

    roles = [msgspec.json.decode(message)["role"] for message in later.prompt.messages]
    assert roles == ["user", "assistant", "user"]


async def test_an_interrupted_turn_is_answered_together_with_its_interruption() -> None:
    """With as many older turns as any other prompt has, though the broken turn had moved the cut."""
    table = Table(WindowSetting(min_turns=2, max_turns=4))
    for number in range(4):
        await table.say([{"role": "user", "content": f"question {number}"}], {"content": "answer"})
    first = await table.open([{"role": "user", "content": "one"}])
    second = asyncio.create_task(table.open([{"role": "user", "content": "two"}], on_busy="restart"))
    await asyncio.sleep(0)
    await first.commit(Answer(message=answer({"content": "half an"}), reply=Reply(), status="incomplete"))

    turn = await second

    said = [msgspec.json.decode(message)["content"] for message in turn.prompt.messages]
    assert said == [*(word for n in range(4) for word in (f"question {n}", "answer")), "one", "two"]


@pytest.mark.parametrize("said", ["Once upon", None])
@pytest.mark.parametrize("how", ["key", "sdk"])
async def test_a_broken_off_turn_that_is_asked_for_again_is_answered_anew(said: str | None, how: str) -> None:
    """A client that left or interrupted itself and retries has said its message once, not twice."""
    table = Table(WindowSetting())
    await table.say([{"role": "user", "content": "one"}], {"content": "a"})
    question = [{"role": "user", "content": "Tell me a story."}]
    wishes: dict[str, Any] = {"idempotency_key": "k"} if how == "key" else {"body_hash": b"h"}
    first = await table.open(question, **wishes)
    half = answer({"content": said}) if said else None
    await first.commit(Answer(message=half, reply=Reply(), status="incomplete"))

    again = await table.open(question, on_busy="restart", is_retry=how == "sdk", **wishes)
    await again.commit(Answer(message=answer({"content": "Once."}), reply=Reply()))

    stored = await table.store.load(KEY)
    assert [msgspec.json.decode(one)["content"] for one in again.prompt.messages] == [
        "one",
        "a",
        "Tell me a story.",
    ]
    assert stored is not None
    assert (stored.turn_count, stored.branches) == (2, 1 if said else 0)


async def test_a_restart_that_repeats_the_running_request_is_not_merged_with_itself() -> None:
    """The same key twice is the same message."""
    table = Table(WindowSetting())
    question = [{"role": "user", "content": "one"}]
    first = await table.open(question, idempotency_key="k")
    second = asyncio.create_task(table.open(question, on_busy="restart", idempotency_key="k"))
    await asyncio.sleep(0)
    await first.commit(Answer(message=answer({"content": "half"}), reply=Reply(), status="incomplete"))

    turn = await second

    assert [msgspec.json.decode(message)["content"] for message in turn.prompt.messages] == ["one"]


async def test_a_greeting_that_calls_a_tool_waits_for_its_result() -> None:
    """As any other answer that does."""
    table = Table(WindowSetting())
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    greeting = await table.open([{"role": "assistant", "content": None, "tool_calls": [call]}])
    await greeting.commit(Answer(message=None, reply=Reply()))

    turn = await table.say([{"role": "tool", "tool_call_id": "1", "content": "sunny"}], {"content": "Sunny."})

    assert len(turn.prompt.messages) == 2
