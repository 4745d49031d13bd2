"""A store that answers and refuses is told apart from one that does not answer, to clients and in the log."""

import json
import uuid
from collections.abc import Iterator

import httpx
import pytest
import redis

from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_gateway, until
from tests.raw_http import CHAT, chat


@pytest.fixture
def gateway(stub: Stub, valkey_url: str) -> Iterator[Gateway]:
    """A gateway over a real store, with a log of its own."""
    with running_gateway(f"vllm={stub.url}", options=("--redis", valkey_url)) as process:
        yield process


def ask(gateway: Gateway, conversation: str, text: str = "hello") -> httpx.Response:
    """One message."""
    headers = {"x-session-id": conversation}
    return httpx.post(gateway.url + CHAT, content=chat(text), headers=headers, trust_env=False, timeout=20)


def lines(gateway: Gateway) -> list[dict[str, object]]:
    """What the log says of the store."""
    logged = [json.loads(line) for line in gateway.stderr().splitlines()]
    return [line for line in logged if "store of dialogues" in line["event"]]


def test_data_of_a_newer_program_is_no_silence_and_not_to_be_retried(
    gateway: Gateway, valkey_url: str
) -> None:
    """Asking again cannot help; the log says what can, once, and not whose conversation it is."""
    conversation = f"secret-{uuid.uuid4().hex}"
    assert ask(gateway, conversation).status_code == 200
    with redis.Redis.from_url(valkey_url) as client:
        client.hset(f"friendo:{{default:{conversation}}}:meta", "v", 99)
    answers = [ask(gateway, conversation, "a secret") for _ in range(5)]
    (line,) = lines(gateway)

    assert {(503, "store_refused", "false")} == {
        (answer.status_code, answer.json()["error"]["code"], answer.headers["x-should-retry"])
        for answer in answers
    }
    assert "does not answer" not in answers[0].text
    assert "schema version 99" in str(line["text"])
    assert "secret" not in gateway.stderr()


def test_store_that_is_away_is_called_that_and_may_be_tried_again(stub: Stub, unused_port: int) -> None:
    """With its reason in the log, once for many requests."""
    options = ("--redis", f"redis://127.0.0.1:{unused_port}/0")
    with running_gateway(f"vllm={stub.url}", options=options) as gateway:
        answers = [ask(gateway, uuid.uuid4().hex) for _ in range(5)]
        problems = httpx.get(f"{gateway.url}/readyz", trust_env=False).json()["problems"]
        (line,) = lines(gateway)

    assert {(503, "store_unavailable", "true")} == {
        (answer.status_code, answer.json()["error"]["code"], answer.headers["x-should-retry"])
        for answer in answers
    }
    assert ("StoreUnavailable", "error") == (line["fault"], line["level"])
    assert str(unused_port) in str(line["text"])
    assert any("store of dialogues" in problem for problem in problems)


def test_without_a_store_answers_may_go_on_and_say_what_they_lack(stub: Stub, unused_port: int) -> None:
    """`on_outage: stateless`: only what was sent is known, a header says so, and traffic is welcome."""
    options = ("--redis", f"redis://127.0.0.1:{unused_port}/0", "--set", "history.on_outage=stateless")
    with running_gateway(f"vllm={stub.url}", options=options) as gateway:
        answers = [ask(gateway, "c"), ask(gateway, "c", "and now?")]
        tool = {"model": "stub", "messages": [{"role": "tool", "tool_call_id": "1", "content": "42"}]}
        result = httpx.post(gateway.url + CHAT, json=tool, headers={"x-session-id": "c"}, trust_env=False)
        ready = httpx.get(f"{gateway.url}/readyz", trust_env=False)

    assert [(200, "unavailable", "c")] * 2 == [
        (answer.status_code, answer.headers["x-friendo-memory"], answer.headers["x-session-id"])
        for answer in answers
    ]
    assert [len(prompt) for prompt in stub.prompts()[-2:]] == [1, 1]
    assert result.status_code == 503
    assert ready.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_comes_back_is_used_again(valkey: Valkey, stub: Stub, stream: bool) -> None:
    """What was said without it is not remembered, what was remembered before is."""
    options = ("--redis", valkey.url, "--set", "history.on_outage=stateless")
    with running_gateway(f"vllm={stub.url}", options=options) as gateway:
        assert "x-friendo-memory" not in ask(gateway, "c", "one").headers
        valkey.kill()
        lost = httpx.post(
            gateway.url + CHAT, content=chat("two", stream=stream), headers={"x-session-id": "c"}, timeout=30
        )
        valkey.start()
        assert until(lambda: "x-friendo-memory" not in ask(gateway, "c", "three").headers, every_s=0.2)

    assert (lost.status_code, lost.headers["x-friendo-memory"]) == (200, "unavailable")
    said = [message["content"] for message in stub.prompts()[-1] if message["role"] == "user"]
    assert said[0] == "one"
    assert "two" not in said
