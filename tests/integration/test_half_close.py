"""A client that shuts its sending side gets all it asked for; one that has left is noticed all the same."""

import socket
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.gateway_process import Gateway, Stub, running_gateway, until
from tests.raw_http import Answer, RawClient, chat, request
from tests.raw_node import DONE, STREAM_HEAD, Line, chunk, delta, running_raw_node

ABORTED_WITHIN_S = 3.0
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
STUB = {"decode_rate": 100.0, "answer_tokens": 10}
MODELS = request(b"", path="/v1/models", method="GET")


@pytest.fixture(autouse=True)
def _no_faults(stub: Stub) -> Iterator[None]:
    stub.set_faults()
    yield
    stub.set_faults()


def asked(text: str, *, remembered: bool = False, **fields: object) -> bytes:
    """A chat, of a new conversation if it is to be remembered."""
    headers = {"x-session-id": uuid.uuid4().hex} if remembered else {}
    return request(chat(text, seed=1, **fields), headers=headers)


def half_closed(gateway: Gateway, data: bytes, answers: int = 1) -> list[Answer]:
    """Send, shut the sending side, read everything; the connection has to end with it."""
    with RawClient(gateway.port) as client:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
        got = [client.answer() for _ in range(answers)]
        assert client.rest() == b""
    return got


def said(answer: Answer) -> tuple[int, bool, bytes]:
    """What is the same for the same question, ids and times left out."""
    if b"data: " in answer.body:
        lines = [line for line in answer.body.split(b"\n") if b'"content":"' in line]
        return answer.status, answer.is_whole, b"".join(line.partition(b'"content":"')[2] for line in lines)
    return answer.status, answer.is_whole, answer.json()["choices"][0]["message"]["content"].encode()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_half_closed_client_gets_its_whole_answer(
    gateway: Gateway, stub: Stub, *, stream: bool, remembered: bool, waits: bool
) -> None:
    """The same as one that does not half-close, also when the node takes a second to begin."""
    with RawClient(gateway.port) as client:
        client.send(asked("half", stream=stream))
        expected = client.answer()
    if waits:
        stub.set_faults({"kind": "slow_headers", "seconds": 1, "times": 1})
    (answer,) = half_closed(gateway, asked("half", stream=stream, remembered=remembered))

    assert answer.headers["connection"] == "close"
    assert said(expected) == said(answer)
    assert answer.body.endswith(b"data: [DONE]\n\n") == stream


def test_all_pipelined_requests_are_answered(gateway: Gateway) -> None:
    """Chats and FastAPI's paths, in order, whoever comes last."""
    one, two = asked("one"), asked("two", stream=True)
    last_is_models = half_closed(gateway, one + two + MODELS, 3)
    last_is_chat = half_closed(gateway, MODELS + two + one, 3)

    assert [200] * 6 == [answer.status for answer in (*last_is_models, *last_is_chat)]
    assert all(answer.is_whole for answer in (*last_is_models, *last_is_chat))
    assert b'"object":"list"' in last_is_models[2].body
    assert said(last_is_models[0]) == said(last_is_chat[2])


def test_other_paths_are_answered_too(gateway: Gateway) -> None:
    """Half-closing is the connection's business, not the path's."""
    assert [200] == [answer.status for answer in half_closed(gateway, MODELS)]
    assert [404] == [answer.status for answer in half_closed(gateway, request(b"", path="/no", method="GET"))]


def test_only_interim_responses_come_before_the_answer(gateway: Gateway, stub: Stub) -> None:
    """That is how the gateway asks whether somebody still reads, while the node says nothing."""
    stub.set_faults({"kind": "slow_headers", "seconds": 1, "times": 1})
    with RawClient(gateway.port) as client:
        client.send(asked("interim"))
        client.socket.shutdown(socket.SHUT_WR)
        wire = client.rest()
    before, head, _ = wire.partition(b"HTTP/1.1 200 OK\r\n")

    assert head
    assert before == INTERIM * (len(before) // len(INTERIM))
    assert 2 <= len(before) // len(INTERIM) <= 6


@pytest.mark.parametrize("shuts", [False, True])
def test_silent_stream_gets_comments_only_then(*, shuts: bool) -> None:
    """The node's events are untouched; one that merely pauses is passed on byte for byte to others."""
    pieces = (delta("a"), delta("b"), delta(finish="stop") + DONE)

    def pauses(line: Line) -> None:
        line.send(STREAM_HEAD + chunk(pieces[0]))
        time.sleep(0.8)
        line.send(chunk(pieces[1]) + chunk(pieces[2]) + chunk(b""))

    with (
        running_raw_node(pauses) as node,
        running_gateway(f"vllm={node.url}") as gateway,
        RawClient(gateway.port) as client,
    ):
        client.send(asked("pause", stream=True))
        if shuts:
            client.socket.shutdown(socket.SHUT_WR)
        answer = client.answer()
    first, *comments, second = answer.body.removesuffix(pieces[2]).split(b"\n\n")[:-1]

    assert answer.is_whole
    assert (pieces[0] + pieces[1]).split(b"\n\n")[:-1] == [first, second]
    assert set(comments) == ({b":"} if shuts else set())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("half_first", [False, True])
def test_client_that_leaves_during_the_prefill_is_noticed(
    gateway: Gateway, stub: Stub, *, stream: bool, half_first: bool
) -> None:
    """Also after it had half-closed: nothing on the wire tells of that, but what is written meets a reset."""
    stub.set_faults({"kind": "slow_headers", "seconds": 30, "times": 1})
    before = stub.stats()
    with RawClient(gateway.port) as client:
        client.send(asked("gone", stream=stream))
        assert until(lambda: stub.stats()["requests"] == before["requests"] + 1)
        if half_first:
            client.socket.shutdown(socket.SHUT_WR)
            time.sleep(1.2)
            assert stub.stats()["aborted"] == before["aborted"]

    assert until(lambda: stub.stats()["aborted"] == before["aborted"] + 1, within_s=ABORTED_WITHIN_S)


@pytest.mark.parametrize("half_first", [False, True])
def test_client_that_leaves_a_silent_stream_is_noticed(
    gateway: Gateway, stub: Stub, *, half_first: bool
) -> None:
    """The head is out and the node has nothing to say."""
    stub.set_faults({"kind": "stall_after_chunks", "chunks": 3, "times": 1})
    before = stub.stats()["aborted"]
    with RawClient(gateway.port) as client:
        client.send(asked("silent", stream=True))
        client.read_some(b'"content":"')
        if half_first:
            client.socket.shutdown(socket.SHUT_WR)
            time.sleep(1.2)
            assert stub.stats()["aborted"] == before

    assert until(lambda: stub.stats()["aborted"] == before + 1, within_s=ABORTED_WITHIN_S)


def test_end_of_input_is_leaving_in_http_1_0(gateway: Gateway, stub: Stub) -> None:
    """It has no interim responses to ask with, and proxies that speak it close when their client leaves."""
    stub.set_faults({"kind": "slow_headers", "seconds": 30, "times": 1})
    before = stub.stats()
    with RawClient(gateway.port) as client:
        client.send(asked("old").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert until(lambda: stub.stats()["requests"] == before["requests"] + 1)
        client.socket.shutdown(socket.SHUT_WR)
        assert until(lambda: stub.stats()["aborted"] == before["aborted"] + 1, within_s=ABORTED_WITHIN_S)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (asked("cut")[:-10], "the body ended before it was complete"),
        (asked("cut")[:50], "the request ended within its headers"),
        (MODELS + asked("cut")[:-10], "the body ended before it was complete"),
    ],
)
def test_request_cut_off_half_way_is_400(gateway: Gateway, stub: Stub, sent: bytes, reason: str) -> None:
    """A client that can still read is told; no node is asked."""
    before = stub.stats()["requests"]
    answer = half_closed(gateway, sent, 1 + sent.startswith(MODELS))[-1]

    assert (400, reason) == (answer.status, answer.json()["error"]["message"])
    assert answer.headers["x-request-id"]
    assert before == stub.stats()["requests"]


def test_idle_connection_ends_with_its_input(gateway: Gateway) -> None:
    """Nothing was asked, nothing is answered; behind an answer as well."""
    assert half_closed(gateway, b"", 0) == []
    with RawClient(gateway.port) as client:
        client.send(asked("one"))
        assert client.answer().status == 200
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b""


def test_log_stays_clean(gateway: Gateway) -> None:
    """After all of the above, nothing unforeseen was written."""
    assert "Traceback" not in gateway.stderr()
    assert "unforeseen" not in gateway.stderr()
