"""A client that leaves, at any point: its node stops within a second, its conversation is free at once."""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.gateway_process import Gateway, Stub, running_gateway, until
from tests.raw_http import Answer, RawClient, chat, request

ABORTED_WITHIN_S = 3.0
FREE_WITHIN_S = 3.0
"""At once, on busy processors too; shorter than a lease, which would free a conversation by itself."""
STUB = {"decode_rate": 20.0, "answer_tokens": 10}


@pytest.fixture(scope="module", params=["drop", "incomplete"])
def gateway(request: pytest.FixtureRequest, stub: Stub) -> Iterator[Gateway]:
    """A gateway for each rule."""
    options = ("--set", f"history.on_disconnect={request.param}")
    with running_gateway(f"vllm={stub.url}", options=options) as process:
        yield process


@pytest.fixture
def keeps(gateway: Gateway, request: pytest.FixtureRequest) -> bool:
    """Whether a turn that was broken off is kept."""
    return "incomplete" in str(request.node.name)


@pytest.fixture
def conversation(stub: Stub) -> Iterator[str]:
    """A conversation of this test alone, and a node without faults."""
    stub.set_faults()
    yield uuid.uuid4().hex
    stub.set_faults()


def asked(conversation: str, text: str, **fields: object) -> bytes:
    """A chat of that conversation; none: a stateless one."""
    return request(chat(text, **fields), headers={"x-session-id": conversation} if conversation else {})


def ask(gateway: Gateway, conversation: str, text: str) -> Answer:
    """One whole chat."""
    with RawClient(gateway.port) as client:
        client.send(asked(conversation, text, max_tokens=1))
        return client.answer()


@contextlib.contextmanager
def aborts(stub: Stub, *, one_more: int = 1) -> Iterator[None]:
    """Inside, so many requests get under way and are aborted, within a second of the block's end."""
    before = stub.stats()["aborted"]
    yield
    assert until(lambda: stub.stats()["aborted"] == before + one_more, within_s=ABORTED_WITHIN_S)
    assert stub.stats()["running"] == 0


def reaches(stub: Stub, count: int) -> bool:
    """Whether the node gets so many requests in all."""
    return until(lambda: stub.stats()["requests"] >= count)


def next_prompt(gateway: Gateway, stub: Stub, conversation: str) -> list[tuple[str, str]]:
    """What a new message's prompt holds; it has to be answered at once."""
    started = time.monotonic()
    answer = ask(gateway, conversation, "and now")
    assert answer.status == 200, answer.body
    assert time.monotonic() - started < FREE_WITHIN_S
    return [(message["role"], message["content"]) for message in stub.prompts()[-1]]


def left_over(keeps: bool, *messages: tuple[str, str]) -> list[tuple[str, str]]:
    """What the rule keeps of a turn that was broken off, before the next message."""
    return [*(messages if keeps else ()), ("user", "and now")]


@pytest.mark.parametrize("stream", [True, False])
def test_left_before_the_head(
    gateway: Gateway, stub: Stub, conversation: str, keeps: bool, *, stream: bool
) -> None:
    """While the node has not said a word."""
    stub.set_faults({"kind": "slow_headers", "seconds": 30, "times": 1})
    count = stub.stats()["requests"] + 1
    with aborts(stub), RawClient(gateway.port) as client:
        client.send(asked(conversation, "early", stream=stream))
        assert reaches(stub, count)
    prompt = next_prompt(gateway, stub, conversation)

    assert left_over(keeps, ("user", "early")) == prompt


def test_left_before_the_first_token(gateway: Gateway, stub: Stub, conversation: str, keeps: bool) -> None:
    """The node has taken the request and says nothing."""
    stub.set_faults({"kind": "stall_after_chunks", "chunks": 0, "times": 1})
    count = stub.stats()["requests"] + 1
    with aborts(stub), RawClient(gateway.port) as client:
        client.send(asked(conversation, "quick", stream=True))
        assert reaches(stub, count)
        time.sleep(0.05)
    prompt = next_prompt(gateway, stub, conversation)

    assert left_over(keeps, ("user", "quick")) == prompt


def test_left_in_mid_stream(gateway: Gateway, stub: Stub, conversation: str, keeps: bool) -> None:
    """What the client has seen is what is kept, if anything is."""
    with aborts(stub), RawClient(gateway.port) as client:
        client.send(asked(conversation, "tell me", stream=True, max_tokens=100))
        seen = client.read_some(b"content")
        seen += b"".join(client.read_some(b'"content":"') + client.read_some(b'"') for _ in range(3))
    prompt = next_prompt(gateway, stub, conversation)

    if not keeps:
        assert [("user", "and now")] == prompt
        return
    question, said, new = prompt
    assert [("user", "tell me"), ("user", "and now")] == [question, new]
    assert said[0] == "assistant"
    assert said[1].startswith(spoken(seen).rstrip(" ."))


def spoken(stream: bytes) -> str:
    """The text of the whole events in the beginning of a chunked stream."""
    events = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: {") and line.endswith(b"}")]
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)


def test_left_without_streaming(gateway: Gateway, stub: Stub, conversation: str, keeps: bool) -> None:
    """Nothing is written meanwhile, so only the reading side tells."""
    count = stub.stats()["requests"] + 1
    with aborts(stub), RawClient(gateway.port) as client:
        client.send(asked(conversation, "whole", max_tokens=100))
        assert reaches(stub, count)
        time.sleep(0.1)
    prompt = next_prompt(gateway, stub, conversation)

    assert left_over(keeps, ("user", "whole")) == prompt


@pytest.mark.parametrize("stream", [True, False])
def test_left_stateless(gateway: Gateway, stub: Stub, *, stream: bool) -> None:
    """Without a conversation it is the same for the node."""
    stub.set_faults()
    count = stub.stats()["requests"] + 1
    with aborts(stub), RawClient(gateway.port) as client:
        client.send(asked("", "stateless", stream=stream, max_tokens=100))
        assert reaches(stub, count)
        time.sleep(0.1)


def test_left_while_queued(gateway: Gateway, stub: Stub, conversation: str) -> None:
    """It never reaches a node, and those behind it move up."""
    before = stub.stats()["requests"]
    with RawClient(gateway.port) as first, RawClient(gateway.port) as third:
        first.send(asked(conversation, "first", stream=True, max_tokens=10))
        first.read_some(b"data: ")
        with RawClient(gateway.port) as second:
            second.send(asked(conversation, "second"))
            time.sleep(0.1)
            third.send(asked(conversation, "third", max_tokens=1))
            time.sleep(0.1)
        assert third.answer().status == 200
        first.read_some(b"[DONE]")

    prompt = [message["content"] for message in stub.prompts()[-1] if message["role"] == "user"]
    assert ["first", "third"] == prompt
    assert before + 2 == stub.stats()["requests"]


def test_left_with_requests_pipelined(gateway: Gateway, stub: Stub, conversation: str) -> None:
    """None of those behind the running one is begun."""
    before = stub.stats()["requests"]
    with aborts(stub), RawClient(gateway.port) as client:
        client.send(asked(conversation, "runs", stream=True, max_tokens=100) * 3)
        client.read_some(b"data: ")
    time.sleep(0.2)

    assert before + 1 == stub.stats()["requests"]


def test_left_after_the_end_loses_nothing(gateway: Gateway, stub: Stub, conversation: str) -> None:
    """The turn is stored before the client sees its end, so leaving at that moment changes nothing."""
    with RawClient(gateway.port) as client:
        client.send(asked(conversation, "kept", stream=True, max_tokens=2))
        client.read_some(b'"finish_reason":"length"')
    prompt = next_prompt(gateway, stub, conversation)

    assert ["user", "assistant", "user"] == [role for role, _ in prompt]


def test_log_stays_clean(gateway: Gateway) -> None:
    """After all of the above, nothing unforeseen was written."""
    assert "Traceback" not in gateway.stderr()
    assert "unforeseen" not in gateway.stderr()
