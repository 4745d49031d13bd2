"""A client that sends its whole dialogue gets the stepped window, by a header or by configuration."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.gateway_process import Gateway, Stub, running_gateway
from tests.raw_http import CHAT

LEAST, MOST = 3, 6
WINDOW = tuple(
    part
    for name, turns in (("min_turns", LEAST), ("max_turns", MOST))
    for part in ("--set", f"history.rules.window.{name}={turns}")
)
PERSONA = {"role": "system", "content": "You are Mia"}


@pytest.fixture(scope="module", params=["header", "setting"])
def asks(request: pytest.FixtureRequest, stub: Stub) -> Iterator[tuple[Gateway, dict[str, str]]]:
    """A gateway, and the headers that ask it for the window."""
    by_header = request.param == "header"
    options = WINDOW if by_header else (*WINDOW, "--set", "history.stateless=window")
    with running_gateway(f"vllm={stub.url}", options=options) as gateway:
        yield gateway, {"x-history": "window"} if by_header else {}


def ask(url: str, messages: list[dict[str, Any]], headers: dict[str, str]) -> dict[str, Any]:
    """The message that answers."""
    body = {"model": "stub", "messages": messages, "max_tokens": 4}
    answer = httpx.post(url + CHAT, json=body, headers=headers, trust_env=False, timeout=20)
    assert answer.status_code == 200, answer.text
    assert "x-session-id" not in answer.headers
    said: dict[str, Any] = answer.json()["choices"][0]["message"]
    return {"role": "assistant", "content": said["content"]}


def test_whole_dialogue_is_cut_in_steps(asks: tuple[Gateway, dict[str, str]], stub: Stub) -> None:
    """The node sees the persona and three to six turns; between two cuts each prompt begins with the last."""
    gateway, headers = asks
    dialogue: list[dict[str, Any]] = [PERSONA]
    prompts = []
    for number in range(20):
        dialogue.append({"role": "user", "content": f"message {number}"})
        dialogue.append(ask(gateway.url, dialogue, headers))
        prompts.append(stub.prompts()[-1])
    grown = [after[: len(before)] == before for before, after in pairwise(prompts)]
    turns = [(len(prompt) - 2) // 2 for prompt in prompts]

    assert all(prompt[0] == PERSONA for prompt in prompts)
    assert [f"message {number}" for number in range(20)] == [prompt[-1]["content"] for prompt in prompts]
    assert all(min(number, LEAST) <= shown for number, shown in enumerate(turns))
    assert max(turns) == MOST
    assert -(-(19 - MOST) // (MOST - LEAST + 1)) == grown.count(False)


def test_off_is_off(asks: tuple[Gateway, dict[str, str]], stub: Stub) -> None:
    """Whatever is configured, a client may send what it means."""
    gateway, _ = asks
    dialogue: list[dict[str, Any]] = []
    for number in range(12):
        dialogue += [{"role": "user", "content": str(number)}, {"role": "assistant", "content": "a"}]
    ask(gateway.url, [*dialogue, {"role": "user", "content": "new"}], {"x-history": "off"})

    assert 25 == len(stub.prompts()[-1])
