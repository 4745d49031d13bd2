"""What a model's notes say, and how they stand in a prompt."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.conversation import Memory
from history.memory import Notes, block, head, is_chinese, read_notes, renewed


def memory(summary: str = "They met at sea.", *facts: str) -> Memory:
    return Memory(covers_to=3, version=1, summary=summary, facts=facts)


@pytest.mark.parametrize(
    "text",
    [
        "SUMMARY:\nThey met.\n\nFACTS:\n- Her name is Ada.\n- Born in May.",
        "**Summary**:\nThey met.\n\n## Facts\n* Her name is Ada.\n* Born in May.\n* None",
        "They met.\nFacts:\n1. Her name is Ada.\n2) Born in May.\n2) Born in May.",
        "<think>What is there to say?</think>\nSUMMARY: They met.\nFACTS\n• Her name is Ada.\n• Born in May.",
        "摘要：\nThey met.\n事实：\n- Her name is Ada.\n- Born in May.\n- 无",
    ],
)
def test_notes_are_read_in_the_forms_that_models_write(text: str) -> None:
    """Marks, numbers, bold heads, thoughts: the same two facts."""
    assert read_notes(text, max_facts=9) == Notes("They met.", ("Her name is Ada.", "Born in May."))


def test_a_long_answer_that_begins_with_an_apology_is_no_refusal() -> None:
    """A summary may well tell that somebody was sorry."""
    text = "Sorry was the first word that Luna said to the traveller. " * 10

    assert read_notes(text, max_facts=3) is not None


@given(st.text(), st.integers(0, 5))
def test_notes_are_bounded_whatever_a_model_writes(text: str, limit: int) -> None:
    """At most so many facts, at most so long, and never empty ones."""
    notes = read_notes(text, max_facts=limit)

    if notes is not None:
        assert len(notes.facts) <= limit
        assert len(notes.summary) <= 6000
        assert all(fact.strip() and len(fact) <= 200 for fact in notes.facts)


def test_the_oldest_facts_go_first_where_there_are_too_many() -> None:
    """A fact that was said again counts as new."""
    notes = renewed(memory("Old.", "a", "b", "c"), Notes("New.", ("b", "d")), max_facts=3)

    assert notes == Notes("New.", ("c", "b", "d"))


def test_without_a_memory_the_persona_keeps_its_own_bytes() -> None:
    """All users of a character share them in the cache."""
    persona = b'{"role":"system","content":"Luna \\u00e9"}'

    assert head(persona, "") == persona
    assert head(b"", "") == b""


@pytest.mark.parametrize(
    "persona",
    [
        b"",
        b'{"role":"developer","content":"Luna"}',
        b'{"role":"system","content":[{"type":"text","text":"Luna"}]}',
    ],
)
def test_persona_and_memory_are_one_message(persona: bytes) -> None:
    """Many chat templates allow only one system message; its role and its form stay."""
    first = msgspec.json.decode(head(persona, block(memory("They met.", "Her cat is Pixel."))))

    before = msgspec.json.decode(persona) if persona else {"role": "system", "content": ""}
    assert first["role"] == before["role"]
    text = (
        first["content"]
        if isinstance(first["content"], str)
        else "".join(part["text"] for part in first["content"])
    )
    assert text.endswith(block(memory("They met.", "Her cat is Pixel.")))
    assert type(first["content"]) is type(before["content"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("你好，Alice", False), ("你好，今天怎么样？", True), ("hello", False), ("", False), ("123 …", False)],
)
def test_the_language_is_told_by_its_letters(text: str, expected: bool) -> None:
    """Mostly Chinese characters, or not."""
    assert is_chinese(text) is expected
