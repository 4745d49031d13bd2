"""While a prompt is computed, a streaming client hears something; nothing of an answer is out then."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from openai import APIError, OpenAI

from tests.gateway_books import events, is_idle
from tests.gateway_process import Gateway, running_gateway, until
from tests.raw_http import Answer, RawClient, chat, request
from tests.raw_node import (
    DONE,
    STREAM_HEAD,
    Line,
    RawNode,
    Script,
    chunk,
    delta,
    event,
    running_raw_node,
    whole,
)

PING = b": ping\n\n"
ANSWER = delta("said") + delta(finish="stop") + DONE
OPTIONS = ("relay.ping_s=0.1", "relay.first_byte_s=0.5", "relay.idle_s=0.4")
SLOW_S = 0.35
"""Three pings."""


@pytest.fixture(scope="module")
def node() -> Iterator[RawNode]:
    """A node whose bytes the tests write."""
    with running_raw_node(lambda line: line.hang_up()) as raw:
        yield raw


@pytest.fixture(scope="module")
def gateway(node: RawNode) -> Iterator[Gateway]:
    """A gateway over it that pings soon."""
    with running_gateway(f"vllm={node.url}", options=settings(*OPTIONS)) as process:
        yield process


def settings(*assignments: str) -> tuple[str, ...]:
    """As options."""
    return tuple(part for one in assignments for part in ("--set", one))


def after(seconds: float, *pieces: bytes) -> Script:
    """Say nothing for a while, then these."""

    def script(line: Line) -> None:
        time.sleep(seconds)
        line.send(*pieces)

    return script


def streamed(body: bytes) -> bytes:
    """A whole answer on the wire."""
    return STREAM_HEAD + chunk(body) + chunk(b"")


def ask(gateway: Gateway, conversation: str = "", **fields: Any) -> Answer:
    """One chat."""
    headers = {"x-session-id": conversation} if conversation else {}
    with RawClient(gateway.port) as client:
        client.send(request(chat(**{"stream": True, **fields}), headers=headers))
        return client.answer()


def without_pings(answer: Answer) -> bytes:
    """What came behind them: they stand before everything else, and there is one at least."""
    assert answer.body.startswith(PING)
    while answer.body.startswith(PING):
        answer = Answer(answer.status, answer.headers, answer.body.removeprefix(PING))
    assert PING not in answer.body
    return answer.body


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
@pytest.mark.parametrize("early_head", [False, True])
def test_pings_come_until_the_answer_begins(
    gateway: Gateway, node: RawNode, *, remembered: bool, early_head: bool
) -> None:
    """And none within it, however long it stands still there. The answer is the node's own, byte for byte."""

    def script(line: Line) -> None:
        line.send(STREAM_HEAD if early_head else b"")
        time.sleep(SLOW_S)
        line.send(chunk(delta("said")) if early_head else STREAM_HEAD + chunk(delta("said")))
        time.sleep(0.25)
        line.send(chunk(delta(finish="stop") + DONE) + chunk(b""))

    node.script = script
    answer = ask(gateway, uuid.uuid4().hex if remembered else "")

    assert 200 == answer.status
    assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
    assert answer.headers["x-friendo-route"] in ("spread", "prefix", "bound")
    assert ANSWER == without_pings(answer)


def test_quick_answers_and_whole_ones_have_none(gateway: Gateway, node: RawNode) -> None:
    """A body that is JSON has no place for them."""
    body = b'{"choices":[{"message":{"role":"assistant","content":"ok"}}]}'
    node.script = lambda line: line.send(streamed(ANSWER))
    assert ANSWER == ask(gateway).body
    node.script = after(SLOW_S, whole(body))
    assert body == ask(gateway, stream=False).body


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (whole(b"{}", status="500 Oh"), "node_failed"),
        (whole(b"{}", status="429 Busy"), "server_is_overloaded"),
        (whole(b'{"error":{"message":"no"}}', status="400 Bad"), None),
        (streamed(event(error={"message": "full", "code": 503}) + DONE), "server_is_overloaded"),
    ],
)
def test_failure_behind_a_ping_is_an_event(
    gateway: Gateway, node: RawNode, answer: bytes, code: str | None, *, remembered: bool
) -> None:
    """The status is out. There is no end that looks clean, and the conversation is free."""
    conversation = uuid.uuid4().hex if remembered else ""
    node.script = after(SLOW_S, answer)
    failed = ask(gateway, conversation)
    error = json.loads(without_pings(failed).removeprefix(b"data: "))["error"]

    assert (200, code, {"message", "type", "param", "code"}) == (failed.status, error["code"], set(error))
    assert is_idle(gateway)
    node.script = lambda line: line.send(streamed(ANSWER))
    assert ANSWER == ask(gateway, conversation).body
    assert [{"role": "user", "content": "hello"}] == json.loads(node.seen[-1])["messages"]


def test_another_node_may_answer_behind_a_ping(node: RawNode) -> None:
    """Nothing of an answer was sent; each node has its own deadline, and pings go on."""
    with running_raw_node(lambda line: line.hang_up()) as other:
        first_only = [after(9, b"")]

        def script(line: Line) -> None:
            (first_only.pop() if first_only else after(SLOW_S, streamed(ANSWER)))(line)

        node.script = other.script = script
        nodes = (f"vllm={node.url}", f"vllm={other.url}")
        with running_gateway(*nodes, options=settings(*OPTIONS)) as gateway:
            answer = ask(gateway)
            assert {"failover": 1, "node_silent": 1} == dict(events(gateway))
        assert (200, ANSWER) == (answer.status, without_pings(answer))
        assert answer.body.count(PING) >= 5


def test_client_that_leaves_between_pings(gateway: Gateway, node: RawNode) -> None:
    """The node is told, and nothing is written any more."""
    node.hung_up.clear()
    node.script = lambda line: None
    with RawClient(gateway.port) as client:
        client.send(request(chat(stream=True)))
        client.read_some(PING)
    assert node.hung_up.wait(1)
    assert until(lambda: is_idle(gateway))
    assert "Traceback" not in gateway.stderr()


def test_pings_can_be_off(node: RawNode) -> None:
    """With 0."""
    node.script = after(SLOW_S, streamed(ANSWER))
    with running_gateway(f"vllm={node.url}", options=settings("relay.ping_s=0")) as gateway:
        assert ANSWER == ask(gateway).body


def test_openais_client_passes_over_them(gateway: Gateway, node: RawNode) -> None:
    """And raises what comes behind them."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        said: dict[str, Any] = {"model": "stub", "messages": [{"role": "user", "content": "hi"}]}
        node.script = after(SLOW_S, streamed(ANSWER))
        chunks = list(client.chat.completions.create(**said, stream=True))
        assert "said" == chunks[0].choices[0].delta.content
        node.script = after(SLOW_S, whole(b"{}", status="500 Oh"))
        with pytest.raises(APIError, match="node failed"):
            list(client.chat.completions.create(**said, stream=True))


COMMENT = b": keep-alive\n\n"


def comments(line: Line) -> None:
    """What vLLM sends while a prompt waits, for ever."""
    line.send(STREAM_HEAD)
    for _ in range(100):
        line.send(chunk(COMMENT))
        time.sleep(0.05)


def test_comments_of_a_node_are_no_answer(node: RawNode) -> None:
    """Its first byte is due as if it had said nothing, and another node may still answer."""

    def script(line: Line) -> None:
        (comments if 1 == len(node.seen) + len(other.seen) else good)(line)

    def good(line: Line) -> None:
        line.send(STREAM_HEAD + chunk(COMMENT), chunk(COMMENT + ANSWER) + chunk(b""))

    with running_raw_node(script) as other:
        node.seen.clear()
        node.script = script
        nodes = (f"vllm={node.url}", f"vllm={other.url}")
        options = settings("relay.first_byte_s=0.5", "relay.idle_s=5")
        with running_gateway(*nodes, options=options) as gateway:
            answer = ask(gateway)
            assert {"failover": 1, "node_silent": 1} == dict(events(gateway))
    assert (200, COMMENT * 2 + ANSWER) == (answer.status, answer.body)
