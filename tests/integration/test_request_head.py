"""Request heads without end, in size or in time, are refused on every path; idle connections are not."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from gateway.api.head_watch import MAX_HEAD
from tests.gateway_process import Gateway
from tests.protocol_server import ProtocolServer, hello, running_protocol
from tests.raw_http import CHAT, Answer, RawClient, chat, request

PATHS = [CHAT, "/v1/models", "/nowhere"]
HEAD_WITHIN_S = 0.5
FIELDS = {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def hasty() -> Iterator[ProtocolServer]:
    """A server that gives heads half a second, and idle connections two."""
    with running_protocol(head_within_s=HEAD_WITHIN_S, keep_alive_s=2) as server:
        yield server


def head(path: str, size: int) -> bytes:
    """A head of about so many bytes, without its end."""
    start = f"POST {path} HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\nx-padding: ".encode()
    return start + b"x" * (size - len(start))


def assert_refused(answer: Answer, status: int) -> None:
    """In OpenAI's envelope, with an id to ask about, and with the connection's end."""
    assert status == answer.status
    assert FIELDS == set(answer.json()["error"])
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("whole", [True, False])
def test_head_over_the_limit_is_431(gateway: Gateway, path: str, pieces: int, *, whole: bool) -> None:
    """Whichever path, in however many segments, with or without its end."""
    data = head(path, MAX_HEAD + 200) + (b"\r\n\r\n" if whole else b"")
    with RawClient(gateway.port) as client:
        for at in range(pieces):
            client.send(data[at * len(data) // pieces : (at + 1) * len(data) // pieces])
            time.sleep(0.01)
        answer = client.answer()
        assert client.rest() == b""

    assert_refused(answer, 431)
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", PATHS)
def test_many_small_headers_are_too_many(gateway: Gateway, path: str) -> None:
    """The sum counts, not the longest one."""
    lines = "".join(f"x-{number}: y\r\n" for number in range(9000))
    with RawClient(gateway.port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nhost: g\r\n{lines}\r\n".encode())
        assert_refused(client.answer(), 431)


def test_endless_head_takes_no_memory(gateway: Gateway) -> None:
    """A header value that goes on for ever is cut off at the limit, not kept."""
    with RawClient(gateway.port) as client:
        client.send(head(CHAT, MAX_HEAD))
        for _ in range(200):
            client.send(b"x" * 1000)
        assert_refused(client.answer(), 431)


@pytest.mark.parametrize("path", PATHS)
def test_head_just_below_the_limit_is_read(gateway: Gateway, path: str) -> None:
    """Cookies of 60 kB are odd, not wrong; a large body behind them does not count."""
    body = chat("x" * 200_000, max_tokens=1)
    with RawClient(gateway.port) as client:
        client.send(request(body, path=path, headers={"x-padding": "x" * (MAX_HEAD - 300)}))
        assert client.answer().status in {200, 400, 404, 405}


def test_pipelined_requests_do_not_add_up(gateway: Gateway) -> None:
    """A hundred requests of 2 kB in one go are no head of 200 kB; one of 65 kB among them is."""
    small = request(b"", path="/livez", method="GET", headers={"x-padding": "x" * 2000})
    large = request(b"", path="/livez", method="GET", headers={"x-padding": "x" * MAX_HEAD})
    with RawClient(gateway.port) as client:
        client.send(small * 100)
        assert [200] * 100 == [client.answer().status for _ in range(100)]
        client.send(small * 3 + large + small)
        statuses = []
        while not statuses or statuses[-1] == 200:
            statuses.append(client.answer().status)
        assert client.rest() == b""

    assert statuses[-1] == 431
    assert len(statuses) <= 4


def test_endless_trailer_is_refused(gateway: Gateway) -> None:
    """What follows a chunked body is a head too."""
    with RawClient(gateway.port) as client:
        client.send(b"POST %b HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n" % CHAT.encode())
        client.send(b"2\r\n{}\r\n0\r\nx-trailer: ")
        for _ in range(500):
            client.send(b"x" * 1000)
        assert_refused(client.answer(), 431)


@pytest.mark.parametrize("sent", [b"POST ", b"POST /v1/models HTTP/1.1\r\nhost: g\r\n", b"\r\n\r\n"])
def test_head_that_does_not_end_is_408(hasty: ProtocolServer, sent: bytes) -> None:
    """Counted from its first byte, however slowly the rest drips in."""
    before = len(hasty.refused)
    with RawClient(hasty.port) as client:
        started = time.monotonic()
        for byte in sent[:4]:
            client.send(bytes([byte]))
            time.sleep(HEAD_WITHIN_S / 5)
        client.send(sent[4:])
        answer = client.answer()
        waited = time.monotonic() - started
        assert client.rest() == b""

    assert_refused(answer, 408)
    assert answer.headers["x-should-retry"] == "true"
    assert waited > 0.9 * HEAD_WITHIN_S
    assert [408] == hasty.refused[before:]


def test_second_head_has_its_deadline_too(hasty: ProtocolServer) -> None:
    """On a connection that has carried a request."""
    with RawClient(hasty.port) as client:
        client.send(request(chat()) + b"POST /v1/ch")
        assert client.answer().status == 200
        assert_refused(client.answer(), 408)


@pytest.mark.parametrize("first", [b"", request(chat()), request(b"", path="/x", method="GET")])
def test_idle_connection_has_the_keep_alive_time(hasty: ProtocolServer, first: bytes) -> None:
    """Longer than a head's: it is closed without a word, whether or not it ever carried a request."""
    with RawClient(hasty.port) as client:
        if first:
            client.send(first)
            assert client.answer().status == 200
        time.sleep(3 * HEAD_WITHIN_S)
        assert hasty.connections == 1
        assert client.rest() == b""


def test_body_behind_an_early_answer_does_not_hold_the_connection(hasty: ProtocolServer) -> None:
    """The rest of a body that nobody waited for, and then nothing: closed as an idle one."""
    with RawClient(hasty.port) as client:
        client.send(request(b"x" * 10, path="/elsewhere")[:-5])
        assert client.answer().status == 200
        client.send(b"x" * 5)
        started = time.monotonic()
        assert client.rest() == b""

    assert time.monotonic() - started < 8


def test_body_that_stands_still_is_408_with_an_id_and_counted(
    hasty: ProtocolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head was in time; the client's own id comes back."""
    monkeypatch.setattr("gateway.api.chat_cycle._BODY_IDLE_S", 0.2)
    before = len(hasty.refused)
    with RawClient(hasty.port) as client:
        client.send(request(chat(), headers={"x-request-id": "mine"})[:-5])
        answer = client.answer()
        assert client.rest() == b""

    assert (408, "mine") == (answer.status, answer.headers["x-request-id"])
    assert [408] == hasty.refused[before:]


def test_next_head_may_rest_while_an_answer_is_given() -> None:
    """A pipelining client waits with the rest of its next request: it is not late before it is its turn."""
    within_s = 2.0  # on a busy machine the rest takes a while, too

    async def slowly(call: object, reply: object) -> None:
        await asyncio.sleep(1.5 * within_s)
        await hello(call, reply)  # type: ignore[arg-type] # passed on

    with running_protocol(slowly, head_within_s=within_s) as server, RawClient(server.port) as client:
        second = request(chat("second"))
        client.send(request(chat("first")) + second[:20])
        assert client.answer().status == 200
        client.send(second[20:])
        assert client.answer().status == 200


def test_what_the_protocol_refuses_has_an_id_and_is_counted(gateway: Gateway) -> None:
    """431, 400 and 413 of the parser and of the body stand in the metrics like every other answer."""
    before = counted(gateway)
    with RawClient(gateway.port) as client:
        client.send(head("/", MAX_HEAD + 1))
        assert client.answer().headers["x-request-id"]
    with RawClient(gateway.port) as client:
        client.send(b"no http\r\n\r\n")
        assert client.answer().headers["x-request-id"]
    with RawClient(gateway.port) as client:
        client.send(
            request(b"", headers={"x-request-id": "mine"}).replace(b"length: 0", b"length: 90000000")
            + b"x" * (17 * 1024 * 1024)
        )
        assert client.answer().headers["x-request-id"] == "mine"
    after = counted(gateway)

    assert {"431": 1, "400": 1, "413": 1} == {
        status: after[status] - before.get(status, 0) for status in ("431", "400", "413")
    }


def counted(gateway: Gateway) -> dict[str, int]:
    """Answers to nobody's model, by status."""
    lines = httpx.get(f"{gateway.url}/metrics", trust_env=False).text.splitlines()
    mark = 'friendo_requests_total{model="other",status="'
    return {
        line.removeprefix(mark)[:3]: int(float(line.split()[-1])) for line in lines if line.startswith(mark)
    }


def test_a_body_that_is_announced_as_too_long_is_refused_unread(gateway: Gateway) -> None:
    """413 at once, not when so much has come."""
    with RawClient(gateway.port) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")
        assert client.answer().status == 413
