"""The chat path as TCP sees it: any segmentation, pipelining, keep-alive, HTTP/1.0, hang-ups."""

import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.gateway_process import Gateway, Stub, running_gateway
from tests.raw_http import CHAT, RawClient, chat, request

MAX_BODY = 200_000
MODELS = b"GET /v1/models HTTP/1.1\r\nhost: gateway\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(stub: Stub) -> Iterator[Gateway]:
    """A gateway with a small limit on bodies."""
    with running_gateway(
        f"vllm={stub.url}", options=("--set", f"server.max_body_bytes={MAX_BODY}")
    ) as process:
        yield process


@pytest.fixture
def client(gateway: Gateway) -> Iterator[RawClient]:
    """A connection of this test alone."""
    with RawClient(gateway.port) as connection:
        yield connection


def test_request_split_at_any_byte_is_answered(client: RawClient) -> None:
    """Head and body may be cut anywhere between two segments; the answer is the same, on one connection."""
    whole = request(chat("split", seed=1, max_tokens=2))
    client.send(whole)
    expected = client.answer().json()["choices"]
    for cut in range(1, len(whole)):
        client.send(whole[:cut])
        time.sleep(0.0005)
        client.send(whole[cut:])
        answer = client.answer()
        assert (200, expected) == (answer.status, answer.json()["choices"]), f"cut at {cut}"


def test_request_in_single_bytes_is_answered(client: RawClient) -> None:
    """The slowest of senders."""
    for byte in request(chat("byte by byte", stream=True, max_tokens=2)):
        client.send(bytes([byte]))
    answer = client.answer()

    assert answer.status == 200
    assert answer.is_whole
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_chunked_request_body_is_read(client: RawClient) -> None:
    """A client that does not know its length beforehand."""
    body = chat("chunked", max_tokens=2)
    pieces = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7)
    )
    client.send(b"POST %b HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n" % CHAT.encode())
    client.send(pieces + b"0\r\n\r\n")

    assert client.answer().status == 200


def test_pipelined_chats_are_answered_in_order(client: RawClient) -> None:
    """Streamed, whole, streamed: three requests in one segment, three answers one after the other."""
    texts = ("first", "second", "third")
    client.send(b"".join(request(chat(text, stream=at != 1, max_tokens=4)) for at, text in enumerate(texts)))
    answers = [client.answer() for _ in texts]
    for text in texts:
        client.send(request(chat(text, max_tokens=4)))
    alone = [client.answer().json()["choices"][0]["message"]["content"] for _ in texts]

    assert all(answer.status == 200 and answer.is_whole for answer in answers)
    assert alone == [streamed(answers[0].body), answers[1].json()["choices"][0]["message"]["content"],
                     streamed(answers[2].body)]  # fmt: skip


def streamed(body: bytes) -> str:
    """What a stream says."""
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("chat_first", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_chat_and_models_can_be_pipelined(client: RawClient, *, chat_first: bool, stream: bool) -> None:
    """The chat path and FastAPI share a connection, whichever comes first."""
    asked = request(chat("both", stream=stream, max_tokens=3))
    client.send(asked + MODELS + asked if chat_first else MODELS + asked + MODELS)
    answers = [client.answer() for _ in range(3)]

    is_list = [b'"object":"list"' in answer.body for answer in answers]
    assert [200, 200, 200] == [answer.status for answer in answers]
    assert is_list == ([False, True, False] if chat_first else [True, False, True])
    assert all(answer.is_whole for answer in answers)


def test_connection_is_used_again(client: RawClient) -> None:
    """Errors and streams do not cost the connection."""
    for body in (
        chat("one", stream=True),
        b"no json",
        chat("two"),
        chat("three", model="absent"),
        chat("four"),
    ):
        client.send(request(body))
        assert client.answer().headers.get("connection") is None


def test_expect_continue_is_met(client: RawClient) -> None:
    """The body comes only after the gateway asked for it."""
    body = chat("continue")
    head = request(body, headers={"expect": "100-continue"})[: -len(body)]
    client.send(head)
    assert client.read_some(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)

    assert client.answer().status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_http_1_0_client_gets_a_body_that_ends_with_the_connection(
    client: RawClient, *, stream: bool
) -> None:
    """No chunks, which it would not understand."""
    client.send(request(chat("old", stream=stream)).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    answer = client.answer()

    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert client.rest() == b""
    assert answer.body.endswith(b"data: [DONE]\n\n") if stream else answer.json()["choices"]


def test_connection_close_is_honoured(client: RawClient) -> None:
    """The client's wish; what it pipelined behind that is not answered."""
    client.send(
        request(chat("last", stream=True), headers={"connection": "close"}) + request(chat("too late"))
    )
    answer = client.answer()

    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert client.rest() == b""


def test_body_cut_off_half_way_reaches_no_node(gateway: Gateway, stub: Stub) -> None:
    """The client died while it was sending: nothing was asked, and the gateway goes on."""
    before = stub.stats()["requests"]
    with RawClient(gateway.port) as client:
        client.send(request(chat("never asked"))[:-10])
    with RawClient(gateway.port) as client:
        client.send(request(chat("asked")))
        assert client.answer().status == 200

    assert stub.stats()["requests"] == before + 1


def test_body_longer_than_said_is_refused(client: RawClient) -> None:
    """What follows is no request; the answer is an error in the envelope, and the connection ends."""
    body = chat("long")
    client.send(request(body).replace(b"content-length: %d" % len(body), b"content-length: 5"))
    answer = client.answer()

    assert answer.status == 400
    assert {"message", "type", "param", "code"} == set(answer.json()["error"])
    client.rest()


def test_gibberish_is_refused_in_the_envelope(client: RawClient) -> None:
    """What is no HTTP at all."""
    client.send(b"\x16\x03\x01 hello\r\n\r\n")
    answer = client.answer()

    assert answer.status == 400
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert client.rest() == b""


@pytest.mark.parametrize("size", [MAX_BODY + 1, 30 * MAX_BODY])
def test_too_large_body_gets_its_413(client: RawClient, size: int) -> None:
    """A client that sends all of it before it reads still gets the answer, not a reset."""
    client.send(request(chat("x" * size)))
    answer = client.answer()

    assert answer.status == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert answer.headers["connection"] == "close"
    assert client.rest() == b""


def test_request_behind_a_too_large_one_is_not_served(gateway: Gateway, stub: Stub) -> None:
    """The connection has been declared closed: nothing may happen on it any more."""
    before = stub.stats()["requests"]
    with RawClient(gateway.port) as client:
        client.send(request(chat("x" * MAX_BODY)) + request(chat("must not be asked")))
        assert client.answer().status == 413
        assert client.rest() == b""

    assert stub.stats()["requests"] == before


def test_nothing_after_a_413_is_served(gateway: Gateway, stub: Stub) -> None:
    """Also if the client goes on only after it has read its answer."""
    before = stub.stats()["requests"]
    with RawClient(gateway.port) as client:
        whole = request(chat("x" * MAX_BODY * 2))
        client.send(whole[:-10_000])
        assert client.answer().status == 413
        client.send(whole[-10_000:] + request(chat("must not be asked")))
        assert client.rest() == b""

    assert before == stub.stats()["requests"]


def test_largest_body_is_served(client: RawClient) -> None:
    """The limit itself is within the limit."""
    body = chat("", stream=False, max_tokens=1, metadata={"padding": ""})
    body = body.replace(b'"padding": ""', b'"padding": "%b"' % (b"x" * (MAX_BODY - len(body))))
    assert len(body) == MAX_BODY
    client.send(request(body))

    assert client.answer().status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_other_methods_are_405(client: RawClient, method: str) -> None:
    """In the envelope, with what is allowed; HEAD without a body."""
    client.send(f"{method} {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n".encode())
    if method == "HEAD":
        assert client.read_some(b"\r\n\r\n").startswith(b"HTTP/1.1 405 ")
        client.send(request(chat("after")))
        assert client.answer().status == 200
        return
    answer = client.answer()

    assert (405, "POST", "false") == (
        answer.status,
        answer.headers["allow"],
        answer.headers["x-should-retry"],
    )
    assert {"message", "type", "param", "code"} == set(answer.json()["error"])


def test_query_string_is_no_other_path(client: RawClient) -> None:
    """Azure's clients add one."""
    client.send(request(chat("query"), path=CHAT + "?api-version=1"))
    assert client.answer().status == 200


def test_offer_to_upgrade_is_passed_over(client: RawClient) -> None:
    """Java's client offers h2c with every request in the clear; HTTP/1.1 goes on, on the same connection."""
    offer = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAEAAEAAAAIAAAABAAMAAABk",
    }
    for _ in range(2):
        client.send(request(chat("upgrade"), headers=offer))
        assert client.answer().status == 200


def test_half_closed_connection_harms_nobody(gateway: Gateway) -> None:
    """A client may shut its sending side; whatever it gets, the next one is served."""
    with RawClient(gateway.port) as client:
        client.send(request(chat("half")))
        client.socket.shutdown(socket.SHUT_WR)
        client.rest()
    with RawClient(gateway.port) as client:
        client.send(request(chat("whole")))
        assert client.answer().status == 200


def test_proxy_requests_are_refused(client: RawClient) -> None:
    """CONNECT would make a tunnel of the connection."""
    client.send(b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n")
    assert client.answer().status == 400
