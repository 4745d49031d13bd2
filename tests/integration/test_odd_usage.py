"""Engines that report token counts which cannot be: the answer is good, the counts teach nothing."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway_books import events, nodes
from tests.gateway_process import Gateway, running_gateway, until
from tests.raw_http import RawClient, chat, request
from tests.raw_node import DONE, STREAM_HEAD, Line, RawNode, chunk, delta, event, running_raw_node, whole

ODD = {
    "more than a prompt can have": {"prompt_tokens": 10**12, "completion_tokens": 2},
    "less than none": {"prompt_tokens": -7, "completion_tokens": 2},
    "no number": {"prompt_tokens": "nine", "completion_tokens": 2.5},
    "a list": [1, 2],
}


@pytest.fixture(scope="module")
def node() -> Iterator[RawNode]:
    """A node whose bytes the tests write."""
    with running_raw_node(lambda line: line.hang_up()) as raw:
        yield raw


@pytest.fixture(scope="module")
def gateway(node: RawNode) -> Iterator[Gateway]:
    """A gateway over that node alone."""
    with running_gateway(f"vllm={node.url}") as process:
        yield process


def answering(usage: Any) -> Any:
    """A script that answers with this usage, streamed where that is wished."""
    frame = {"id": "c1", "created": 7, "model": "stub"}
    message = {"role": "assistant", "content": "hello"}
    body = {**frame, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}

    def script(line: Line) -> None:
        if json.loads(line.request.partition(b"\r\n\r\n")[2]).get("stream"):
            said = delta("hello") + delta(finish="stop") + event(**frame, choices=[], usage=usage) + DONE
            line.send(STREAM_HEAD + chunk(said) + chunk(b""))
        else:
            line.send(whole(json.dumps(body).encode()))

    return script


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", ODD.values(), ids=ODD)
def test_the_answer_is_given_and_remembered(
    gateway: Gateway, node: RawNode, usage: Any, *, stream: bool
) -> None:
    """Two turns of one conversation; what was counted is left out of all sums, and said of the node."""
    node.script, before, name = answering(usage), events(gateway)["odd_usage"], uuid.uuid4().hex
    with RawClient(gateway.port) as client:
        for text in ("one", "two"):
            client.send(request(chat(text, conversation=name, stream=stream)))
            answer = client.answer()
            assert (200, True) == (answer.status, b"hello" in answer.body)
    assert ["one", "hello", "two"] == [one["content"] for one in json.loads(node.seen[-1])["messages"]]
    assert events(gateway)["odd_usage"] == before + 2
    assert nodes(gateway)[0]["prefill_tokens_per_second"] is None
    assert until(lambda: any("token counts that cannot be" in note for note in nodes(gateway)[0]["notes"]))
