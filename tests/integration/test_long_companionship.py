"""A long conversation through the gateway: what left the window comes back, and an answer stays possible."""

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway_process import Gateway, Stub, running_gateway, running_stub

numbers = itertools.count()
WINDOW = (
    *("--set", "history.rules.window.min_turns=2", "--set", "history.rules.window.max_turns=4"),
    *("--set", "history.rules.compaction.enabled=false"),
)
FACT = "My sister's wedding is in Oslo on the ninth of May."
QUESTION = "Where was my sister's wedding going to be?"


@pytest.fixture(scope="module")
def node() -> Iterator[Stub]:
    """A node whose context is short."""
    with running_stub(engine="vllm", context_length=2048) as stub:
        yield stub


@pytest.fixture(scope="module")
def gateway(node: Stub) -> Iterator[Gateway]:
    """Four turns of window."""
    with running_gateway(f"vllm={node.url}", options=("--model", "stub", *WINDOW)) as one:
        yield one


def say(gateway: Gateway, conversation: str, text: str, **fields: Any) -> httpx.Response:
    body = {
        "model": "stub",
        "conversation": conversation,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)


def usage(answer: httpx.Response) -> tuple[int, int, int]:
    """Prompt, cached and expected tokens."""
    assert answer.status_code == 200, answer.text
    told = answer.json()["usage"]
    cached = told["prompt_tokens_details"]["cached_tokens"]
    return told["prompt_tokens"], cached, int(answer.headers["x-friendo-cached-expected"])


def test_what_left_the_window_stands_behind_the_message_that_asks_for_it(
    node: Stub, gateway: Gateway
) -> None:
    """The prompt before it is cached as ever, and so is what follows."""
    name = f"c{next(numbers)}"
    for text in (FACT, *(f"Today I fed {number} ducks by the pond." for number in range(7))):
        say(gateway, name, text)

    asked = usage(say(gateway, name, QUESTION))
    last = node.prompts()[-1][-1]["content"]
    following = usage(say(gateway, name, "Thank you."))
    plain = node.prompts()[-1][-3]["content"]

    assert last.startswith(f"{QUESTION}\n\n<recalled>\n")
    assert "Oslo" in last
    assert asked[1] >= asked[2] > 0
    assert following[1] >= following[2] > 0
    assert plain in (last, QUESTION)


def test_the_message_before_a_tail_that_was_dropped_is_expected_to_be_cached(
    node: Stub, gateway: Gateway
) -> None:
    """The tail stood behind it, so the node has its text; also several times in a row."""
    name = f"c{next(numbers)}"
    lore = "The harbour is frozen and the ferries wait for spring. " * 12
    for number in range(4):
        text = f"Message {number}. " + "The lighthouse keeper counts the ships that pass. " * 8
        prompt, cached, expected = usage(say(gateway, name, text, tail={"lore": [lore]}))
        if number:
            assert abs(cached - expected) <= 16
            assert prompt - cached < 450
        assert "harbour" in node.prompts()[-1][-1]["content"]
        assert not any("harbour" in message["content"] for message in node.prompts()[-1][:-1])


@pytest.mark.parametrize("limit", [{}, {"max_tokens": 900}])
def test_a_long_dialogue_never_makes_an_answer_impossible(
    node: Stub, gateway: Gateway, limit: dict[str, int]
) -> None:
    """The window gives way to the model's context and to the answer that was asked for."""
    name = f"c{next(numbers)}"
    for number in range(12):
        answer = say(gateway, name, f"{number}. " + "The ship sails on to the north. " * 40, **limit)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["prompt_tokens"] + limit.get("max_tokens", 0) <= 2048


def test_notes_and_lore_go_behind_the_message_of_one_turn(node: Stub, gateway: Gateway) -> None:
    """Supplied by the client, read by the model, and no part of the engine's fields."""
    name = f"c{next(numbers)}"
    tail = {"note": "Luna is tired.", "lore": ["The harbour is frozen."]}
    say(gateway, name, "Good morning.", tail=tail)

    body = node.stats()["recent"][-1]["body"]
    assert "tail" not in body
    assert "<note>\nLuna is tired.\n</note>" in body["messages"][-1]["content"]
    assert "The harbour is frozen." in body["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("tail", "conversation"),
    [
        ({"note": "x" * 9000}, "c"),
        ({"note": 1}, "c"),
        ({"speech": "x"}, "c"),
        ({"note": "x"}, ""),
        ("x", "c"),
    ],
)
def test_a_tail_that_makes_no_sense_is_refused(gateway: Gateway, tail: Any, conversation: str) -> None:
    """In OpenAI's envelope, by its name."""
    answer = say(gateway, conversation, "Hello", tail=tail)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tail"
