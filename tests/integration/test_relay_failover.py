"""A node that fails before the first byte is replaced by another; from then on the failure is told."""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest

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

GOOD_STREAM = delta("good") + delta(finish="stop") + DONE
GOOD_BODY = b'{"choices":[{"message":{"role":"assistant","content":"good"},"finish_reason":"stop"}]}'
SGLANG_BUSY = event(error={"object": "error", "message": "The request queue is full.", "code": 503})
TOO_LONG = "This model's maximum context length is 10 tokens. However, your prompt contains 99 input tokens"


class Pair:
    """Two nodes that share one list of scripts: whichever is asked plays the next; then both are good."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.nodes: list[RawNode] = []
        self.asked: list[bytes] = []
        """The chat completions that came to either."""

    def play(self, line: Line) -> None:
        """Answer as the next script says."""
        self.asked.append(line.request)
        (self.scripts.pop(0) if self.scripts else good)(line)


def good(line: Line) -> None:
    """Answer as asked, streamed or not."""
    if b'"stream": true' in line.request or b'"stream":true' in line.request:
        line.send(STREAM_HEAD + chunk(GOOD_STREAM) + chunk(b""))
    else:
        line.send(whole(GOOD_BODY))


def dies(*pieces: bytes) -> Script:
    """Send these and hang up."""

    def script(line: Line) -> None:
        line.send(*pieces)
        time.sleep(0.02)
        line.hang_up()

    return script


def goes_on(*pieces: bytes) -> Script:
    """Send these one after the other and stay."""

    def script(line: Line) -> None:
        for piece in pieces:
            line.send(piece)
            time.sleep(0.02)

    return script


def says(answer: bytes) -> Script:
    """Send this and stay."""
    return lambda line: line.send(answer)


@pytest.fixture(scope="module")
def module_pair() -> Iterator[Pair]:
    """The nodes of this module."""
    pair = Pair()
    with running_raw_node(pair.play) as one, running_raw_node(pair.play) as other:
        pair.nodes = [one, other]
        yield pair


@pytest.fixture(scope="module")
def gateway(module_pair: Pair) -> Iterator[Gateway]:
    """A gateway over both."""
    with running_gateway(*(f"vllm={node.url}" for node in module_pair.nodes)) as process:
        yield process


@pytest.fixture
def pair(module_pair: Pair, gateway: Gateway) -> Pair:
    """Both nodes, healthy."""
    module_pair.scripts.clear()
    assert until(lambda: problems(gateway) == [], every_s=0.05)
    return module_pair


@pytest.fixture
def client(gateway: Gateway) -> Iterator[RawClient]:
    """A connection of this test alone."""
    with RawClient(gateway.port) as connection:
        yield connection


def problems(gateway: Gateway) -> list[str]:
    """Nodes that are away."""
    listed = httpx.get(f"{gateway.admin_url}/admin/nodes", trust_env=False).json()["data"]
    return [node["id"] for node in listed if not node["healthy"]]


def ask(client: RawClient, *, stream: bool, conversation: str = "") -> Answer:
    """One chat."""
    headers = {"x-session-id": conversation} if conversation else {}
    client.send(request(chat(stream=stream), headers=headers))
    return client.answer()


BEFORE_FIRST_BYTE = {
    "dies before the head": dies(),
    "dies in the head": dies(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "dies after the head": dies(STREAM_HEAD),
    "dies in the first event": dies(STREAM_HEAD + chunk(b'data: {"choices":[{"del')),
    "speaks no HTTP": says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "sends a huge head": says(b"HTTP/1.1 200 OK\r\nx: %b\r\n\r\n" % (b"x" * 100_000)),
    "ends without an end mark": says(STREAM_HEAD + chunk(b"")),
    "500": says(whole(b'{"error":{"message":"boom"}}', status="500 Internal Server Error")),
    "502 of a proxy": says(whole(b"<html>bad gateway</html>", status="502 Bad Gateway")),
    "429": says(whole(b'{"error":{"message":"busy"}}', status="429 Too Many Requests")),
    "503": says(whole(b"", status="503 Service Unavailable")),
    "401: our key is wrong": says(whole(b'{"error":"Unauthorized"}', status="401 Unauthorized")),
    "302": says(whole(b"", status="302 Found", headers=b"location: http://127.0.0.1:1/\r\n")),
    "SGLang's full queue": says(STREAM_HEAD + chunk(SGLANG_BUSY + DONE) + chunk(b"")),
    "no JSON": says(whole(b'{"choices":[{"mess')),
}
ONLY = {
    True: {"SGLang's full queue", "dies in the first event", "ends without an end mark"},
    False: {"no JSON"},
}
"""Cases that make sense only for streams, or only without."""


@pytest.mark.parametrize(
    ("case", "stream"),
    [
        (case, stream)
        for case in BEFORE_FIRST_BYTE
        for stream in (True, False)
        if case not in ONLY[not stream]
    ],
)
def test_another_node_answers(client: RawClient, pair: Pair, case: str, *, stream: bool) -> None:
    """The client does not notice, and each node was asked once."""
    before = len(pair.asked)
    pair.scripts = [BEFORE_FIRST_BYTE[case]]
    answer = ask(client, stream=stream)

    assert (200, GOOD_STREAM if stream else GOOD_BODY) == (answer.status, answer.body)
    assert answer.headers["x-friendo-route"] == "failover"
    assert before + 2 == len(pair.asked)


def test_both_busy_is_told_with_the_time_to_come_back(client: RawClient, pair: Pair) -> None:
    """503 with the node's own delay, and the nodes stay healthy: load is no failure."""
    busy = whole(
        b'{"error":{"message":"queue full"}}', status="429 Too Many Requests", headers=b"retry-after: 7\r\n"
    )
    pair.scripts = [says(busy), says(busy)]
    answer = ask(client, stream=True)

    assert answer.status == 503
    assert ("7000", "7", "true") == tuple(
        answer.headers[name] for name in ("retry-after-ms", "retry-after", "x-should-retry")
    )
    assert answer.json()["error"]["code"] == "server_is_overloaded"
    assert "queue full" in answer.json()["error"]["message"]


def test_both_broken_is_a_bad_gateway(client: RawClient, pair: Pair) -> None:
    """Each was tried once."""
    before = len(pair.asked)
    pair.scripts = [BEFORE_FIRST_BYTE["500"]] * 2
    answer = ask(client, stream=False)

    assert (502, "node_failed", "true") == (
        answer.status,
        answer.json()["error"]["code"],
        answer.headers["x-should-retry"],
    )
    assert before + 2 == len(pair.asked)


@pytest.mark.parametrize("stream", [True, False])
def test_three_nodes_are_tried_and_no_more(*, stream: bool) -> None:
    """Each of them once: two re-choices, however many nodes there are."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running_raw_node(dies())) for _ in range(5)]
        gateway = stack.enter_context(running_gateway(*(f"vllm={node.url}" for node in nodes)))
        answer = ask(stack.enter_context(RawClient(gateway.port)), stream=stream)

    assert (502, "node_failed") == (answer.status, answer.json()["error"]["code"])
    assert [0, 0, 1, 1, 1] == sorted(len(node.seen) for node in nodes)


@pytest.mark.parametrize("stream", [True, False])
def test_request_that_the_engine_refuses_is_not_tried_again(
    client: RawClient, pair: Pair, gateway: Gateway, *, stream: bool
) -> None:
    """The client's fault: passed on as OpenAI says it, and no node is blamed for it, however often."""
    refusal = whole(
        json.dumps({"error": {"message": TOO_LONG, "code": 400}}).encode(), status="400 Bad Request"
    )
    before = len(pair.asked)
    pair.scripts = [says(refusal)] * 6
    answers = [ask(client, stream=stream) for _ in range(6)]

    assert {(400, "context_length_exceeded", "false")} == {
        (answer.status, answer.json()["error"]["code"], answer.headers["x-should-retry"])
        for answer in answers
    }
    assert before + 6 == len(pair.asked)
    assert problems(gateway) == []


def test_refusal_inside_a_stream_is_a_refusal(client: RawClient, pair: Pair) -> None:
    """SGLang may find out about the length after its 200."""
    error = event(error={"object": "error", "message": TOO_LONG, "type": "BadRequestError", "code": 400})
    before = len(pair.asked)
    pair.scripts = [says(STREAM_HEAD + chunk(error + DONE) + chunk(b""))]
    answer = ask(client, stream=True)

    assert (400, "context_length_exceeded") == (answer.status, answer.json()["error"]["code"])
    assert before + 1 == len(pair.asked)


HALF = STREAM_HEAD + chunk(delta("half"))
MID_STREAM = {
    "dies": dies(HALF),
    "dies in an event": dies(HALF, chunk(b'data: {"cho')),
    "breaks its chunks": goes_on(HALF, b"zz\r\nwhat\r\n"),
    "ends without an end mark": goes_on(HALF, chunk(b"")),
    "writes the end mark as text and ends": goes_on(HALF, chunk(delta("data: [DONE]")) + chunk(b"")),
    "says that it failed": goes_on(
        HALF, chunk(event(error={"message": "boom", "code": 500}) + DONE) + chunk(b"")
    ),
    "says so between others": goes_on(
        HALF, chunk(delta("more") + event(error={"message": "boom"}) + delta("lost") + DONE) + chunk(b"")
    ),
}


@pytest.mark.parametrize("case", MID_STREAM)
@pytest.mark.parametrize("remembered", [False, True])
def test_failure_in_mid_stream_is_an_error_event(
    client: RawClient, pair: Pair, case: str, *, remembered: bool
) -> None:
    """What was sent stands, then comes an error and no clean end; the connection and the dialogue go on."""
    conversation = uuid.uuid4().hex if remembered else ""
    pair.scripts = [MID_STREAM[case]]
    answer = ask(client, stream=True, conversation=conversation)
    after = ask(client, stream=True, conversation=conversation)

    *sent, error = answer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert answer.is_whole
    assert b"half" in sent[0]
    assert b"lost" not in answer.body
    assert all(one.startswith(b'data: {"id"') for one in sent)
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "node_failed"
    assert (200, GOOD_STREAM) == (after.status, after.body)
    if remembered:
        body = pair.asked[-1].partition(b"\r\n\r\n")[2]
        assert [{"role": "user", "content": "hello"}] == json.loads(body)["messages"]
