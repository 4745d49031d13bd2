"""What a node sends reaches the client byte for byte, however TCP cuts it; what we added does not."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway_process import Gateway, running_gateway
from tests.raw_http import RawClient, chat, request
from tests.raw_node import (
    DONE,
    STREAM_HEAD,
    USAGE,
    Line,
    RawNode,
    Script,
    chunk,
    delta,
    running_raw_node,
    whole,
)

SAID = (delta("Grüß "), delta('"data: [DONE]"\n'), b": a comment\n\n", delta("🌊"), delta(finish="stop"))
STREAM = b"".join(SAID) + USAGE + DONE
WITHOUT_USAGE = b"".join(SAID) + DONE
ASKS_FOR_USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


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


@pytest.fixture
def client(gateway: Gateway) -> Iterator[RawClient]:
    """A connection of this test alone."""
    with RawClient(gateway.port) as connection:
        yield connection


def sends(*segments: bytes, pause_s: float = 0.0) -> Script:
    """A script that sends these segments."""

    def script(line: Line) -> None:
        for segment in segments:
            line.send(segment)
            time.sleep(pause_s)

    return script


def asked(*, remembered: bool, wants_usage: bool) -> bytes:
    """A streamed chat, of a new conversation if it is to be remembered."""
    headers = {"x-session-id": uuid.uuid4().hex} if remembered else {}
    return request(chat(stream=True, **(ASKS_FOR_USAGE if wants_usage else {})), headers=headers)


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("wants_usage", [False, True])
def test_stream_is_the_nodes_own_at_any_split(
    client: RawClient, node: RawNode, *, remembered: bool, wants_usage: bool
) -> None:
    """Two segments, cut at every byte of the chunked body; usage reaches only those who asked for it."""
    wire = chunk(STREAM) + chunk(b"")
    expected = STREAM if wants_usage else WITHOUT_USAGE
    for cut in range(1, len(wire), 1 if remembered else 3):
        node.script = sends(STREAM_HEAD + wire[:cut], wire[cut:], pause_s=0.0005)
        client.send(asked(remembered=remembered, wants_usage=wants_usage))
        answer = client.answer()
        assert (200, True, expected) == (answer.status, answer.is_whole, answer.body), f"cut at {cut}"


@pytest.mark.parametrize("remembered", [False, True])
def test_stream_in_single_events_is_the_nodes_own(
    client: RawClient, node: RawNode, *, remembered: bool
) -> None:
    """One segment for each event, the usage alone in one: nothing ends the answer early."""
    events = [*SAID, USAGE, DONE]
    node.script = sends(STREAM_HEAD, *map(chunk, events), chunk(b""), pause_s=0.005)
    client.send(asked(remembered=remembered, wants_usage=False))
    answer = client.answer()
    node.script = sends(whole(b'{"choices":[{"message":{"content":"next"}}]}'))
    client.send(request(chat("next")))

    assert WITHOUT_USAGE == answer.body
    assert client.answer().status == 200


def test_carriage_returns_are_kept(client: RawClient, node: RawNode) -> None:
    """The other line ending that the format allows, cut at every byte."""
    stream = STREAM.replace(b"\n\n", b"\r\n\r\n")
    expected = WITHOUT_USAGE.replace(b"\n\n", b"\r\n\r\n")
    wire = chunk(stream) + chunk(b"")
    for cut in range(1, len(wire), 2):
        node.script = sends(STREAM_HEAD + wire[:cut], wire[cut:], pause_s=0.0005)
        client.send(asked(remembered=bool(cut % 4), wants_usage=False))
        assert expected == client.answer().body, f"cut at {cut}"


def test_first_token_does_not_wait_for_the_second(client: RawClient, node: RawNode) -> None:
    """An event goes on when it is there, not when the next one comes."""
    node.script = sends(STREAM_HEAD + chunk(delta("first")), pause_s=0.0)
    client.send(asked(remembered=True, wants_usage=False))
    seen = client.read_some(b"first")
    line_goes_on = chunk(delta("second") + delta(finish="stop") + DONE) + chunk(b"")
    assert b"second" not in seen
    assert node.last is not None
    node.last.send(line_goes_on)
    rest = client.read_some(b"[DONE]")

    assert b"second" in rest


@pytest.mark.parametrize("remembered", [False, True])
def test_whole_answer_is_the_nodes_own(client: RawClient, node: RawNode, *, remembered: bool) -> None:
    """Odd spacing, unknown fields and all, stored or not."""
    body = json.dumps(
        {
            "id": "x",
            "choices": [{"message": {"role": "assistant", "content": "é\u2028"}, "odd": None}],
            "z": 1.50,
        },
        indent=3,
    ).encode()
    node.script = sends(whole(body))
    headers = {"x-session-id": uuid.uuid4().hex} if remembered else {}
    client.send(request(chat(), headers=headers))

    assert body == client.answer().body


def test_broken_chunk_is_passed_on_but_never_remembered(client: RawClient, node: RawNode) -> None:
    """Stateless, the client sees what the node sent; with a conversation, that nothing was stored."""
    broken = b'data: {"choices":[{"delta":{"content":"brok\n\n'
    stream = delta("a") + broken + delta(finish="stop") + DONE
    node.script = sends(STREAM_HEAD + chunk(stream) + chunk(b""))
    client.send(asked(remembered=False, wants_usage=False))
    passed = client.answer()
    client.send(asked(remembered=True, wants_usage=False))
    refused = client.answer()

    assert stream == passed.body
    assert refused.is_whole
    assert b"[DONE]" not in refused.body
    assert b'"code":"node_failed"' in refused.body


def test_broken_usage_costs_the_client_nothing(client: RawClient, node: RawNode) -> None:
    """It is only for the books, and the answer is complete."""
    stream = delta("a") + delta(finish="stop") + b'data: {"choices":[],"usage":{"prompt\n\n' + DONE
    node.script = sends(STREAM_HEAD + chunk(stream) + chunk(b""))
    client.send(asked(remembered=False, wants_usage=True))

    assert stream == client.answer().body


def test_node_that_fails_now_and_then_stays(client: RawClient, node: RawNode) -> None:
    """Only failures in a row take a node out of use."""
    body = whole(b'{"choices":[{"message":{"content":"ok"}}]}')
    statuses = []
    for answer in [whole(b"", status="500 Internal Server Error"), body] * 4:
        node.script = sends(answer)
        client.send(request(chat()))
        statuses.append(client.answer().status)

    assert [502, 200] * 4 == statuses


def test_interim_response_is_not_the_answer(client: RawClient, node: RawNode) -> None:
    """A node may say 100 or 103 before it answers."""
    body = b'{"choices":[{"message":{"content":"after"}}]}'
    node.script = sends(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", whole(body), pause_s=0.01)
    client.send(request(chat()))

    assert body == client.answer().body


def test_node_gets_the_clients_fields_and_none_that_are_ours(client: RawClient, node: RawNode) -> None:
    """What an engine takes passes; whose cache, which rank and which conversation does not."""
    node.script = sends(whole(b'{"choices":[{"message":{"content":"ok"}}]}'))
    fields = {
        "temperature": 1.50, "tools": [{"type": "function", "function": {"name": "f"}}], "unknown": {},
        "conversation": uuid.uuid4().hex, "session_id": "s", "on_busy": "queue", "cache_salt": "x",
        "priority": -9, "kv_transfer_params": {}, "request_id": "r", "rid": "r", "lora_path": "p",
    }  # fmt: skip
    client.send(request(chat("hi", **fields), headers={"authorization": "Bearer secret", "cookie": "c=1"}))
    client.answer()

    sent = json.loads(node.seen[-1])
    assert {"model", "messages", "temperature", "tools", "unknown"} == set(sent)
    assert b"secret" not in node.last_request
    assert b"cookie" not in node.last_request.lower()
    assert b'"temperature":1.5' in node.seen[-1]
