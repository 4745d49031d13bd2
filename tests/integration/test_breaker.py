"""A node whose health path answers while its requests fail: left alone, tried with one, taken back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.routing.breaker import OPENS_AFTER, TRIALS
from tests.gateway_books import events, is_idle, metric, nodes
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.raw_http import Answer, RawClient, chat, request

STUB = {"decode_rate": 50.0, "answer_tokens": 10}
FAILS: dict[str, Any] = {"kind": "status", "status": 500}
ILL: dict[str, Any] = {"kind": "status", "status": 500, "path": "/health"}
"""Keeps an open breaker open."""


@pytest.fixture
def gateway(stub: Stub) -> Iterator[Gateway]:
    """A gateway of this test alone: what was counted for its node must not be another test's."""
    stub.set_faults()
    with running_gateway(f"vllm={stub.url}", options=("--set", "relay.idle_s=0.3")) as process:
        yield process


def ask(gateway: Gateway, text: str = "hello", **fields: Any) -> Answer:
    """One chat."""
    with RawClient(gateway.port) as client:
        client.send(request(chat(text, **fields)))
        return client.answer()


def state(gateway: Gateway) -> str:
    """The first node's breaker."""
    return str(nodes(gateway)[0]["breaker"])


def becomes(gateway: Gateway, wanted: str) -> bool:
    """Whether the breaker gets there."""
    return until(lambda: state(gateway) == wanted, every_s=0.05)


def half_open(gateway: Gateway, stub: Stub) -> None:
    """Requests failed until it opened, and a probe succeeded."""
    stub.set_faults(FAILS, ILL)
    opens_after = OPENS_AFTER + TRIALS  # there is no other node
    assert [502] * opens_after + [503] == [ask(gateway).status for _ in range(opens_after + 1)]
    assert "open" == state(gateway)
    stub.set_faults()
    assert becomes(gateway, "half_open")


def test_the_only_node_is_tried_without_waiting_for_a_probe(gateway: Gateway, stub: Stub) -> None:
    """Two requests failed, and the next one is answered: nobody else could have, so nobody is refused."""
    stub.set_faults({**FAILS, "times": OPENS_AFTER}, ILL)
    answers = [502] * OPENS_AFTER + [200, 200]
    assert answers == [ask(gateway).status for _ in range(OPENS_AFTER + 2)]
    assert "closed" == state(gateway)
    stub.set_faults()


def test_request_that_is_answered_closes_it(gateway: Gateway, stub: Stub) -> None:
    """Then failures have to be two in a row again."""
    half_open(gateway, stub)
    assert 200 == ask(gateway).status
    assert "closed" == state(gateway)
    stub.set_faults({**FAILS, "times": 1})
    assert [502, 200] == [ask(gateway).status for _ in range(2)]
    assert "closed" == state(gateway)


def test_request_that_fails_opens_it_again(gateway: Gateway, stub: Stub) -> None:
    """At the first one."""
    half_open(gateway, stub)
    stub.set_faults({**FAILS, "times": 1}, ILL)
    assert [502, 503] == [ask(gateway).status for _ in range(2)]
    assert "open" == state(gateway)


@pytest.mark.parametrize("status", [429, 503])
def test_load_is_no_verdict(gateway: Gateway, stub: Stub, status: int) -> None:
    """Neither opens it nor leaves it closed."""
    stub.set_faults({"kind": "status", "status": status, "times": 9})
    assert [503] * 9 == [ask(gateway).status for _ in range(9)]
    assert ("closed", 9) == (state(gateway), events(gateway)["node_busy"])
    half_open(gateway, stub)
    stub.set_faults({"kind": "status", "status": status, "times": 1})
    assert 503 == ask(gateway).status
    assert "half_open" == state(gateway)
    assert 200 == ask(gateway).status


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_is_no_verdict(gateway: Gateway, stub: Stub, *, stream: bool) -> None:
    """And the place of the one request is free again."""
    half_open(gateway, stub)
    stub.set_faults({"kind": "slow_headers", "seconds": 30, "times": 1})
    with RawClient(gateway.port) as client:
        client.send(request(chat(stream=stream)))
        assert until(lambda: nodes(gateway)[0]["running"] == 1)
    assert until(lambda: is_idle(gateway))
    assert "half_open" == state(gateway)
    assert 200 == ask(gateway).status


def test_request_that_the_engine_finds_wrong_is_no_verdict(gateway: Gateway, stub: Stub) -> None:
    """However often."""
    stub.set_faults({"kind": "status", "status": 400, "times": 5})
    assert [400] * 5 == [ask(gateway).status for _ in range(5)]
    assert "closed" == state(gateway)


@pytest.mark.parametrize(
    "fault", [{"kind": "cut_after_chunks", "chunks": 3}, {"kind": "stall_after_chunks", "chunks": 3}]
)
def test_streams_that_break_count(gateway: Gateway, stub: Stub, fault: dict[str, Any]) -> None:
    """A node that begins every answer and ends none is of no use."""
    stub.set_faults(fault, ILL)
    opens_after = OPENS_AFTER + TRIALS
    statuses = [ask(gateway, stream=True).status for _ in range(opens_after + 1)]
    assert [200] * opens_after + [503] == statuses
    stub.set_faults()


def test_one_request_at_a_time_until_one_is_answered(gateway: Gateway, stub: Stub) -> None:
    """The others wait for it, and then all go at once."""
    half_open(gateway, stub)
    with ThreadPoolExecutor(9) as pool:
        stub.set_faults({"kind": "slow_headers", "seconds": 0.5, "times": 1})
        before = stub.stats()["requests"]
        answers = [pool.submit(ask, gateway, f"n{number}", stream=True) for number in range(9)]
        assert until(lambda: metric(gateway, "friendo_queue_length") == 8)
        assert before + 1 == stub.stats()["requests"]
        assert until(lambda: stub.stats()["running"] == 9)
        assert [200] * 9 == [answer.result().status for answer in answers]
    assert is_idle(gateway)


def test_the_others_are_used_meanwhile(stub: Stub) -> None:
    """Nobody notices that one is away."""
    stub.set_faults(FAILS)
    with (
        running_stub(**STUB) as other,
        running_gateway(f"vllm={stub.url}", f"vllm={other.url}") as gateway,
    ):
        assert {200} == {ask(gateway, f"n{number}", max_tokens=1).status for number in range(20)}
        assert 2 == events(gateway)["failover"]
        assert {"open", "closed"} == {node["breaker"] for node in nodes(gateway)}
        stub.set_faults()
        assert until(
            lambda: (
                {ask(gateway, f"m{number}", max_tokens=1).status for number in range(5)} == {200}
                and {node["breaker"] for node in nodes(gateway)} == {"closed"}
            )
        )


def test_nodes_that_all_fail_are_away(stub: Stub) -> None:
    """The last one is no lone node: else all who wait go to it, and the others come back cold and unused."""
    stub.set_faults(FAILS)
    with (
        running_stub(**STUB) as other,
        running_gateway(f"vllm={stub.url}", f"vllm={other.url}") as gateway,
    ):
        other.set_faults(FAILS)
        asked = [ask(gateway, f"n{number}", max_tokens=1).status for number in range(2 * OPENS_AFTER + 1)]
        assert 503 == asked[-1]
        assert {"open"} == {node["breaker"] for node in nodes(gateway)}
