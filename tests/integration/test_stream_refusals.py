"""Engines that refuse with status 200: the first event is looked at before the client sees a byte."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway_books import events, is_idle, nodes
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.raw_http import Answer, RawClient, chat, request

SGLANG: dict[str, Any] = {"engine": "sglang", "decode_rate": 50.0, "answer_tokens": 20}
PREEMPTED = "The request is aborted by a higher priority request."


def sglang_error(message: str, **fields: Any) -> dict[str, Any]:
    """As SGLang writes it into a stream."""
    return {"error": {"object": "error", "message": message, "param": None, **fields}}


LOAD = {
    "full queue": sglang_error("The request queue is full.", type="SERVICE_UNAVAILABLE", code=503),
    "preempted": sglang_error(PREEMPTED, type="SERVICE_UNAVAILABLE", code=503),
    "preempted, by its type": sglang_error(PREEMPTED, type="SERVICE_UNAVAILABLE"),
    "flat": {"object": "error", "message": "The request queue is full.", "type": "503", "code": "503"},
    "code beside the text": {"error": "The request queue is full.", "code": 503},
    "rate limit of a proxy": {"error": {"message": "slow down", "type": "rate_limit_error", "code": "slow"}},
}
FAILURE = {
    "500": sglang_error("Internal error", type="InternalServerError", code=500),
    "nothing but a text": {"error": "boom"},
    "aborted by the scheduler": sglang_error("Decode handshake failed", type="abort", code=500),
}


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    """A node that refuses when more than one waits."""
    with running_stub(**SGLANG, max_running=1, max_waiting=1) as node:
        yield node


@pytest.fixture(scope="module")
def other() -> Iterator[Stub]:
    """One that has room."""
    with running_stub(**SGLANG) as node:
        yield node


@pytest.fixture(scope="module")
def gateway(stub: Stub) -> Iterator[Gateway]:
    """A gateway over the first."""
    with running_gateway(f"sglang={stub.url}") as process:
        yield process


@pytest.fixture(scope="module")
def gateway_of_two(stub: Stub, other: Stub) -> Iterator[Gateway]:
    """A gateway over both."""
    with running_gateway(f"sglang={stub.url}", f"sglang={other.url}") as process:
        yield process


def ask(gateway: Gateway, text: str = "hello", conversation: str = "", **fields: Any) -> Answer:
    """One streamed chat."""
    headers = {"x-session-id": conversation} if conversation else {}
    with RawClient(gateway.port) as client:
        client.send(request(chat(text, stream=True, **fields), headers=headers))
        return client.answer()


def first_event(error: Any) -> dict[str, Any]:
    """The fault."""
    return {"kind": "http200_error_first_event", "body": error, "times": 1}


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
@pytest.mark.parametrize("error", LOAD.values(), ids=LOAD)
def test_load_is_told_with_a_status(gateway: Gateway, stub: Stub, error: Any, *, remembered: bool) -> None:
    """503 with advice to come back, and the node is not blamed."""
    conversation = uuid.uuid4().hex if remembered else ""
    before = events(gateway)
    stub.set_faults(first_event(error))
    refused = ask(gateway, "lost", conversation)

    assert (503, "server_is_overloaded") == (refused.status, refused.json()["error"]["code"])
    assert "true" == refused.headers["x-should-retry"]
    assert {"node_busy": 1} == dict(events(gateway) - before)
    assert [("closed", True)] == [(node["breaker"], node["healthy"]) for node in nodes(gateway)]
    assert is_idle(gateway)
    assert ask(gateway, "next", conversation, max_tokens=1).body.endswith(b"data: [DONE]\n\n")
    assert [{"role": "user", "content": "next"}] == stub.prompts()[-1]


@pytest.mark.parametrize("error", FAILURE.values(), ids=FAILURE)
def test_failure_is_the_nodes(gateway: Gateway, stub: Stub, error: Any) -> None:
    """It has a status as well, and counts."""
    before = events(gateway)
    stub.set_faults(first_event(error))
    failed = ask(gateway)

    assert (502, "node_failed") == (failed.status, failed.json()["error"]["code"])
    assert {"node_fault": 1} == dict(events(gateway) - before)
    assert 200 == ask(gateway, max_tokens=1).status


def test_request_at_fault_is_told_so(gateway: Gateway, stub: Stub) -> None:
    """With the engine's words."""
    stub.set_faults(first_event(sglang_error("temperature is below 0", type="BadRequestError", code=400)))
    refused = ask(gateway)

    assert (400, "temperature is below 0") == (refused.status, refused.json()["error"]["message"])
    assert "false" == refused.headers["x-should-retry"]


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
def test_full_queue_sends_the_rest_elsewhere(
    gateway_of_two: Gateway, stub: Stub, other: Stub, *, remembered: bool
) -> None:
    """The real thing: more at once than the first node takes, and every client gets its answer."""
    stub.set_faults()
    before = events(gateway_of_two)
    asked = stub.stats()["requests"] + other.stats()["requests"]
    conversations = [uuid.uuid4().hex if remembered else "" for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda one: ask(gateway_of_two, f"n{one}", one), conversations))

    assert [200] * 12 == [answer.status for answer in answers]
    assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)
    moved = stub.stats()["requests"] + other.stats()["requests"] - asked - 12
    assert moved > 0
    assert {"failover": moved, "node_busy": moved} == dict(events(gateway_of_two) - before)
    assert [("closed", True)] * 2 == [(node["breaker"], node["healthy"]) for node in nodes(gateway_of_two)]


def test_full_queue_of_the_only_node(gateway: Gateway, stub: Stub) -> None:
    """The real thing again: one runs, one waits, the third is told."""
    stub.set_faults()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(ask, gateway, f"n{number}", max_tokens=50) for number in range(2)]
        assert until(lambda: stub.stats()["waiting"] == 1)
        refused = ask(gateway, "third")
        assert (503, "server_is_overloaded") == (refused.status, refused.json()["error"]["code"])
        assert [200, 200] == [one.result().status for one in running]
