"""Clients that read slowly, nodes that stall, a gateway told to end: nothing grows, nothing is cut."""

import hashlib
import json
import signal
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest

from tests.gateway_process import Gateway, running_gateway, until
from tests.raw_http import RawClient, chat, request
from tests.raw_node import DONE, STREAM_HEAD, Line, RawNode, chunk, delta, running_raw_node

EVENT = delta("x" * 8000)
EVENTS = 4000
MIB = 1024 * 1024
DEADLINES = ("--set", "relay.first_byte_s=1.0", "--set", "relay.idle_s=0.6")


@pytest.fixture
def node() -> Iterator[RawNode]:
    """A node whose bytes the test writes."""
    with running_raw_node(lambda line: line.hang_up()) as raw:
        yield raw


def asked(text: str = "hello", *, stream: bool = True, conversation: str = "") -> bytes:
    """A chat of that conversation; none: a stateless one."""
    headers = {"x-session-id": conversation} if conversation else {}
    return request(chat(text, stream=stream), headers=headers)


def pours(line: Line) -> None:
    """Send 32 MB as fast as they are taken."""
    line.send(STREAM_HEAD)
    for _ in range(EVENTS):
        line.send(chunk(EVENT))
    line.send(chunk(delta(finish="stop") + DONE) + chunk(b""))


@pytest.mark.parametrize("remembered", [False, True])
def test_slow_client_holds_up_the_node_and_not_memory(node: RawNode, *, remembered: bool) -> None:
    """While nobody reads, hardly anything is read from the node; then all of it arrives, unchanged."""
    node.script = pours
    with (
        running_gateway(f"vllm={node.url}") as gateway,
        RawClient(gateway.port, receive_buffer=4096) as client,
    ):
        process = psutil.Process(gateway.process.pid)
        before = process.memory_info().rss
        client.send(asked(conversation="slow" if remembered else ""))
        seen = client.read_some(b"xxxx")
        time.sleep(0.7)
        grown = process.memory_info().rss - before
        answer = client.answer_after(seen)

    expected = EVENT * EVENTS + delta(finish="stop") + DONE
    assert grown < 12 * MIB
    assert answer.is_whole
    assert hashlib.sha256(expected).digest() == hashlib.sha256(answer.body).digest()


@pytest.mark.parametrize("pieces", [(), (STREAM_HEAD,)])
def test_node_that_never_begins_is_given_up(node: RawNode, pieces: tuple[bytes, ...]) -> None:
    """An error with its status, and the node hears that nobody waits any more."""
    node.script = lambda line: line.send(*pieces)
    with running_gateway(f"vllm={node.url}", options=DEADLINES) as gateway, RawClient(gateway.port) as client:
        client.send(asked())
        answer = client.answer()
        assert node.hung_up.wait(1)

    assert (502, "node_failed") == (answer.status, answer.json()["error"]["code"])
    assert "sent nothing for 1 s" in answer.json()["error"]["message"]


def test_node_that_stalls_in_mid_stream_is_given_up(node: RawNode) -> None:
    """What came stands, then an error event; the conversation is free at once."""
    half, whole = STREAM_HEAD + chunk(delta("half")), chunk(delta(finish="stop") + DONE) + chunk(b"")
    node.script = lambda line: line.send(half if not line.number else half + whole)
    conversation = uuid.uuid4().hex
    with running_gateway(f"vllm={node.url}", options=DEADLINES) as gateway, RawClient(gateway.port) as client:
        client.send(asked("one", conversation=conversation))
        stalled = client.answer()
        client.send(asked("two", conversation=conversation))
        after = client.answer()

    assert stalled.is_whole
    assert b'"code":"node_failed"' in stalled.body
    assert b"[DONE]" not in stalled.body
    assert after.body.endswith(DONE)


def test_slow_client_is_given_up_and_the_node_not_blamed(node: RawNode) -> None:
    """A client that takes nothing for the idle deadline loses its answer; the node stays in use."""
    node.script = pours
    with running_gateway(f"vllm={node.url}", options=DEADLINES) as gateway:
        with RawClient(gateway.port, receive_buffer=4096) as client:
            client.send(asked())
            assert node.hung_up.wait(5)
        assert "node failed" not in gateway.stderr()


def test_end_of_the_gateway_waits_for_its_streams(node: RawNode) -> None:
    """SIGTERM: the answer under way is finished, new connections are refused, and the log is clean."""
    node.script = lambda line: line.send(STREAM_HEAD + chunk(delta("before")))
    with running_gateway(f"vllm={node.url}") as gateway, RawClient(gateway.port) as client:
        client.send(asked(conversation="draining"))
        seen = client.read_some(b"before")
        gateway.process.send_signal(signal.SIGTERM)
        assert until(lambda: not accepts(gateway))
        assert node.last is not None
        node.last.send(chunk(delta("after") + delta(finish="stop") + DONE) + chunk(b""))
        answer = client.answer_after(seen)
        assert client.rest() == b""
        assert gateway.process.wait(5) == 0
        log = gateway.stderr()

    assert answer.is_whole
    assert delta("before") + delta("after") + delta(finish="stop") + DONE == answer.body
    assert "Traceback" not in log


@pytest.mark.parametrize("rule", ["drop", "incomplete"])
@pytest.mark.parametrize("stream", [True, False])
def test_end_of_the_gateway_does_not_wait_for_ever(
    node: RawNode, store_url: str, rule: str, *, stream: bool
) -> None:
    """An answer that outlasts the drain ends with an error that says so, and cannot be taken for complete."""
    node.script = lambda line: line.send(STREAM_HEAD + chunk(delta("before")) if stream else b"")
    options = ("--set", "server.drain_s=1", "--set", f"history.on_disconnect={rule}", "--redis", store_url)
    with running_gateway(f"vllm={node.url}", options=options) as gateway, RawClient(gateway.port) as client:
        client.send(asked(stream=stream, conversation=uuid.uuid4().hex))
        seen = client.read_some(b"before") if stream else b""
        assert until(lambda: bool(node.seen))
        gateway.process.send_signal(signal.SIGTERM)
        answer = client.answer_after(seen)
        assert gateway.process.wait(5) == 0
        log = gateway.stderr()

    error = answer.body.rpartition(b"data: ")[2] if stream else answer.body
    assert "shutting_down" == json.loads(error)["error"]["code"]
    assert (200 if stream else 503) == answer.status
    assert answer.is_whole != stream
    assert b"[DONE]" not in answer.body
    assert "Traceback" not in log


def test_body_that_outlasts_the_drain_is_answered(node: RawNode) -> None:
    """Nothing was asked yet; the client learns why nothing comes."""
    options = ("--set", "server.drain_s=1")
    with running_gateway(f"vllm={node.url}", options=options) as gateway, RawClient(gateway.port) as client:
        client.send(asked(stream=False)[:-5])
        time.sleep(0.2)
        gateway.process.send_signal(signal.SIGTERM)
        answer = client.answer()

    assert (503, "true") == (answer.status, answer.headers["x-should-retry"])
    assert answer.headers["x-request-id"]


def accepts(gateway: Gateway) -> bool:
    """Whether a new connection is taken."""
    try:
        RawClient(gateway.port).close()
    except OSError:
        return False
    return True
