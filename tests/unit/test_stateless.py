"""The window over a dialogue that the client sends whole: pure, and as stable as a stored one."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.errors import InvalidMessages
from history.stateless import windowed
from history.window import WindowRule

Message = dict[str, Any]

TEXTS = st.text(max_size=12) | st.just("long " * 200)
CALL = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def tool_turn(said: tuple[str, str]) -> list[Message]:
    """A question that is answered after a tool was asked."""
    return [
        {"role": "user", "content": said[0]},
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {"role": "tool", "tool_call_id": "c", "content": said[1]},
        {"role": "assistant", "content": said[1]},
    ]


def plain_turn(said: tuple[str, str]) -> list[Message]:
    """A question and its answer."""
    return [{"role": "user", "content": said[0]}, {"role": "assistant", "content": said[1]}]


def hasty_turn(said: tuple[str, str]) -> list[Message]:
    """Two questions before an answer."""
    return [{"role": "user", "content": said[0]}, *plain_turn(said)]


def numbered(turns: list[list[Message]]) -> list[list[Message]]:
    """No two alike, or a cut could not be told from none."""
    return [
        [message | {"content": f"{number} {message['content']}"} for message in turn]
        for number, turn in enumerate(turns)
    ]


PAIRS = st.tuples(TEXTS, TEXTS)
TURN = st.one_of(PAIRS.map(plain_turn), PAIRS.map(tool_turn), PAIRS.map(hasty_turn))
TURNS = st.lists(TURN, min_size=1, max_size=30).map(numbered)
PERSONAS = st.lists(st.builds(lambda text: {"role": "system", "content": text}, TEXTS), max_size=2)


@st.composite
def rules(draw: st.DrawFn, *, ceiling: bool = False) -> WindowRule:
    """A stepped window, small enough that these dialogues leave it."""
    least = draw(st.integers(1, 6))
    most = draw(st.integers(least, 12))
    return WindowRule(
        min_turns=least, max_turns=most, max_tokens=draw(st.integers(50, 2000)) if ceiling else 0
    )


def prompts(persona: list[Message], turns: list[list[Message]], rule: WindowRule) -> list[list[Message]]:
    """What is sent turn after turn, each request with everything that was said before it."""
    sent = []
    said = list(persona)
    for turn in turns:
        # The question alone first; a turn with a tool is asked for twice, as its client does.
        ends = [at for at, message in enumerate(turn) if message["role"] == "assistant"]
        sent += [json.loads(windowed(json.dumps([*said, *turn[:end]]).encode(), rule)) for end in ends]
        said += turn
    return sent


@given(PERSONAS, TURNS, rules())
def test_prompt_is_a_strict_prefix_of_the_next_between_cuts(
    persona: list[Message], turns: list[list[Message]], rule: WindowRule
) -> None:
    """And a cut is made at most once in c = max - min + 1 turns."""
    sent = prompts(persona, turns, rule)
    breaks = [at for at in range(1, len(sent)) if sent[at][: len(sent[at - 1])] != sent[at - 1]]

    assert all(len(sent[at - 1]) < len(sent[at]) for at in range(1, len(sent)) if at not in breaks)
    assert len(breaks) <= len(turns) // (rule.max_turns - rule.min_turns + 1)


@given(PERSONAS, TURNS, rules())
def test_last_min_turns_are_always_there(
    persona: list[Message], turns: list[list[Message]], rule: WindowRule
) -> None:
    """Whole, behind the leading system messages, with what is new at the end."""
    question = {"role": "user", "content": "new"}
    least = [message for turn in turns[-rule.min_turns :] for message in turn]
    whole = [*persona, *(message for turn in turns for message in turn), question]
    sent = json.loads(windowed(json.dumps(whole).encode(), rule))

    assert sent[: len(persona)] == persona
    assert sent[-len(least) - 1 :] == [*least, question]
    assert len(sent) <= len(whole)
    assert sum(message["role"] == "assistant" and not message.get("tool_calls") for message in sent) <= (
        rule.max_turns
    )


@given(PERSONAS, TURNS, rules(ceiling=True) | rules())
def test_cuts_lie_where_a_user_speaks_and_part_no_tool_call(
    persona: list[Message], turns: list[list[Message]], rule: WindowRule
) -> None:
    """What is left is the system messages and whole turns, in order; the same input gives the same."""
    raw = json.dumps([*persona, *(message for turn in turns for message in turn), {"role": "user"}]).encode()
    sent = json.loads(windowed(raw, rule))[len(persona) : -1]
    starts = [[message for turn in turns[at:] for message in turn] for at in range(len(turns) + 1)]

    assert sent in starts
    assert windowed(raw, rule) == windowed(raw, rule)


@given(TURNS, rules(ceiling=True))
def test_ceiling_wins_over_the_number_of_turns(turns: list[list[Message]], rule: WindowRule) -> None:
    """The turns shown are never above it, and not all are dropped for it where the newest ones fit."""
    whole = [message for turn in turns for message in turn]
    sent = json.loads(windowed(json.dumps([*whole, {"role": "user", "content": "new"}]).encode(), rule))
    shown = sum(len(json.dumps(message)) // 4 for message in sent[:-1])
    newest = sum(len(json.dumps(message)) for message in turns[-1]) // 4

    assert shown <= rule.max_tokens
    assert len(sent) > 1 or newest > rule.max_tokens


def test_ceiling_cuts_in_steps_too() -> None:
    """Not at every turn: between two cuts the prompt only grows."""
    turns = [plain_turn((f"question {number:03}", "answer " * 10)) for number in range(60)]
    sent = prompts([], turns, WindowRule(min_turns=5, max_turns=50, max_tokens=600))
    breaks = sum(after[: len(before)] != before for before, after in pairwise(sent))

    assert 1 <= breaks <= 8


def test_messages_keep_their_bytes() -> None:
    """Odd spacing, escapes and unknown fields go on as they came; without a cut, the whole does."""
    odd = b'[ {"role" : "user","content":"caf\\u00e9","x":1.50} , {"role":"assistant","content":"b"},'
    raw = (
        odd
        + b'{"role":"user","content":"c"},{"role":"assistant","content":"d"}, {"role":"user","content":"e"} ]'
    )
    assert windowed(raw, WindowRule()) == raw
    assert windowed(raw, WindowRule(min_turns=1, max_turns=1)) == (
        b'[{"role":"user","content":"c"},{"role":"assistant","content":"d"},{"role":"user","content":"e"}]'
    )


@pytest.mark.parametrize("policy", ["all", "last_n"])
def test_other_policies_hold_here_too(policy: str) -> None:
    """`all` cuts nothing, `last_n` shows exactly so many turns."""
    rule = WindowRule(policy=policy, min_turns=2, max_turns=3)  # type: ignore[arg-type] # both are policies
    whole = [message for number in range(9) for message in plain_turn((str(number), "a"))]
    sent = json.loads(windowed(json.dumps([*whole, {"role": "user", "content": "new"}]).encode(), rule))

    assert (19 if policy == "all" else 7) == len(sent)


@pytest.mark.parametrize("raw", [b"[1]", b"[null]", b"[{}]", b'[{"role":5}]', b'{"role":"user"}', b'["a"]'])
def test_what_has_no_role_is_refused(raw: bytes) -> None:
    """Where a turn begins could not be told."""
    with pytest.raises(InvalidMessages):
        windowed(raw, WindowRule())
