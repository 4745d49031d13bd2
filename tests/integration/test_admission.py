"""Nodes at their cap: requests wait in a bounded line, and who is next gets the slot that comes free."""

import contextlib
import json
import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.gateway_books import events, is_idle, metric, nodes, statuses
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.raw_http import Answer, RawClient, chat, request

STUB = {"decode_rate": 50.0, "answer_tokens": 5}


@contextlib.contextmanager
def capped(stub: Stub, *settings: str, cap: int = 1) -> Iterator[Gateway]:
    """A gateway that runs so many requests on the node at once."""
    node = json.dumps([{"engine": "vllm", "url": stub.url, "max_running": cap}])
    options = [part for one in (f"nodes={node}", *settings) for part in ("--set", one)]
    with running_gateway(f"vllm={stub.url}", options=tuple(options)) as process:
        yield process


def asked(text: str, conversation: str = "", **fields: Any) -> bytes:
    """One chat; without a conversation a stateless one."""
    return request(chat(text, **fields), headers={"x-session-id": conversation} if conversation else {})


def ask(gateway: Gateway, text: str, conversation: str = "", **fields: Any) -> Answer:
    """One chat, answered."""
    with RawClient(gateway.port) as client:
        client.send(asked(text, conversation, **fields))
        return client.answer()


@contextlib.contextmanager
def occupied(gateway: Gateway, **fields: Any) -> Iterator[RawClient]:
    """The node's only slot is taken, until the block ends."""
    with RawClient(gateway.port) as client:
        client.send(asked("occupies", stream=True, max_tokens=1000, **fields))
        client.read_some(b"content")
        yield client


def in_line(gateway: Gateway, count: int) -> bool:
    """Whether so many come to wait."""
    return until(lambda: metric(gateway, "friendo_queue_length") == count)


def served(stub: Stub, *, last: int) -> list[str]:
    """The newest user messages of the last requests, in the order in which the node got them."""
    return [prompt[-1]["content"] for prompt in stub.prompts()[-last:]]


def test_as_many_run_as_may_and_all_are_answered(stub: Stub) -> None:
    """The node never sees one too many, and nobody notices but by the time it takes."""
    with capped(stub, cap=3) as gateway, ThreadPoolExecutor(30) as pool:
        answers = pool.map(lambda number: ask(gateway, f"n{number}", stream=number % 2 == 0), range(30))
        most = 0
        while not is_idle(gateway) or not most:
            most = max(most, stub.stats()["running"] + stub.stats()["waiting"])
        assert [200] * 30 == [answer.status for answer in answers]
        assert 3 == most
        assert {200: 30} == dict(statuses(gateway))
        assert 27 == metric(gateway, "friendo_queue_seconds_count")


def test_first_come_first_served(stub: Stub) -> None:
    """Of equals."""
    with capped(stub) as gateway, contextlib.ExitStack() as stack:
        clients = []
        with occupied(gateway):
            for place in range(5):
                client = stack.enter_context(RawClient(gateway.port))
                client.send(asked(f"place {place}", max_tokens=1))
                clients.append(client)
                assert in_line(gateway, place + 1)
        assert [200] * 5 == [client.answer().status for client in clients]

    assert [f"place {place}" for place in range(5)] == served(stub, last=5)


def test_follow_up_goes_first_where_its_prompt_is(stub: Stub) -> None:
    """A shorter wait for it costs the others less than its prompt would."""
    conversation = uuid.uuid4().hex
    with capped(stub) as gateway, RawClient(gateway.port) as cold, RawClient(gateway.port) as warm:
        assert 200 == ask(gateway, "opens " * 400, conversation).status
        with occupied(gateway):
            cold.send(asked("cold", max_tokens=1))
            assert in_line(gateway, 1)
            warm.send(asked("warm", conversation, max_tokens=1))
            assert in_line(gateway, 2)
        assert (200, 200) == (cold.answer().status, warm.answer().status)

    assert ["warm", "cold"] == served(stub, last=2)


def test_background_work_stands_behind(stub: Stub) -> None:
    """Making a prefix resident, which nobody waits for, lets a user pass."""
    conversation = uuid.uuid4().hex
    with (
        capped(stub) as gateway,
        httpx.Client(base_url=gateway.url, trust_env=False) as client,
        RawClient(gateway.port) as user,
        ThreadPoolExecutor(1) as pool,
    ):
        assert 200 == ask(gateway, "opens", conversation).status
        with occupied(gateway):
            path, body = f"/v1/conversations/{conversation}/warm", {"model": "stub"}
            warmed = pool.submit(client.post, path, json=body)
            assert in_line(gateway, 1)
            user.send(asked("user", max_tokens=1))
            assert in_line(gateway, 2)
        assert 200 == user.answer().status
        assert 200 == warmed.result().status_code, warmed.result().text

    assert "user" == served(stub, last=2)[0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
def test_line_that_is_full_refuses_and_says_when_to_come_back(
    stub: Stub, *, remembered: bool, stream: bool
) -> None:
    """429 with all that an SDK looks at, and the conversation is free."""
    conversation = uuid.uuid4().hex if remembered else ""
    with capped(stub, "routing.queue_limit=1") as gateway, RawClient(gateway.port) as waiting:
        with occupied(gateway):
            waiting.send(asked("waits", max_tokens=1))
            assert in_line(gateway, 1)
            refused = ask(gateway, "too many", conversation, stream=stream)
        assert 200 == waiting.answer().status
        error = refused.json()["error"]
        assert (429, "rate_limit_error", "rate_limit_exceeded") == (
            refused.status,
            error["type"],
            error["code"],
        )
        assert {"message", "type", "param", "code"} == set(error)
        assert "1 requests wait already" in error["message"]
        assert "true" == refused.headers["x-should-retry"]
        assert 30_000 >= int(refused.headers["retry-after-ms"]) >= 1000
        assert 1 == events(gateway)["queue_full"]
        assert 200 == ask(gateway, "next", conversation, max_tokens=1).status
        assert [{"role": "user", "content": "next"}] == stub.prompts()[-1]
        assert is_idle(gateway)


def test_wait_that_is_too_long_is_refused(stub: Stub) -> None:
    """Also 429; a stream has not begun by then, so it has its status."""
    with capped(stub, "routing.queue_wait_s=0.3", "relay.ping_s=0.05") as gateway:
        with occupied(gateway):
            refused = ask(gateway, "waits", stream=True)
        assert (429, "rate_limit_exceeded") == (refused.status, refused.json()["error"]["code"])
        assert 1 == events(gateway)["queue_timeout"]
        assert until(lambda: is_idle(gateway))


def test_wait_counts_against_the_answers_total(stub: Stub) -> None:
    """One budget for all that is done for a request: two fifths of it are too much after the wait."""
    with capped(stub, "relay.total_s=1") as gateway, ThreadPoolExecutor(1) as pool:
        alone = ask(gateway, "alone", max_tokens=20)
        first = pool.submit(ask, gateway, "takes all", stream=True, max_tokens=1000)
        assert until(lambda: nodes(gateway)[0]["running"] == 1)
        late = ask(gateway, "waits", max_tokens=20)
        assert b'"code":"deadline_exceeded"' in first.result().body
        assert (200, 504) == (alone.status, late.status)
        assert is_idle(gateway)


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
def test_client_that_leaves_the_line_is_gone_from_it(stub: Stub, *, remembered: bool) -> None:
    """It takes no slot, reaches no node, and leaves its conversation free."""
    conversation = uuid.uuid4().hex if remembered else ""
    with capped(stub) as gateway:
        before = stub.stats()["requests"]
        with occupied(gateway):
            with RawClient(gateway.port) as leaver:
                leaver.send(asked("leaves", conversation))
                assert in_line(gateway, 1)
            assert in_line(gateway, 0)
            assert 1 == nodes(gateway)[0]["running"]
        assert 200 == ask(gateway, "next", conversation, max_tokens=1).status
        assert until(lambda: is_idle(gateway))
        assert [{"role": "user", "content": "next"}] == stub.prompts()[-1]

    assert before + 2 == stub.stats()["requests"]


def test_end_of_the_gateway_serves_those_in_line(stub: Stub) -> None:
    """They came before it was told to end."""
    with capped(stub) as gateway, RawClient(gateway.port) as waiting:
        with occupied(gateway):
            waiting.send(asked("waits", max_tokens=1))
            assert in_line(gateway, 1)
            gateway.process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        assert 200 == waiting.answer().status
        assert 0 == gateway.process.wait(5)


def test_end_of_the_gateway_does_not_wait_for_the_line_for_ever(stub: Stub) -> None:
    """What outlasts the drain is told so."""
    with capped(stub, "server.drain_s=1") as gateway, RawClient(gateway.port) as waiting:
        with occupied(gateway):
            waiting.send(asked("waits", max_tokens=1))
            assert in_line(gateway, 1)
            gateway.process.send_signal(signal.SIGTERM)
            refused = waiting.answer()
        assert (503, "shutting_down") == (refused.status, refused.json()["error"]["code"])
        assert 0 == gateway.process.wait(5)
        assert "Traceback" not in gateway.stderr()


def test_node_whose_own_queue_is_too_long_gets_no_more() -> None:
    """Until it reports that it is not."""
    with running_stub(**{**STUB, "max_running": 1}) as busy, contextlib.ExitStack() as directly:
        for _ in range(4):
            other = directly.enter_context(RawClient(int(busy.url.rpartition(":")[2])))
            other.send(asked("directly", stream=True, max_tokens=3000))
        assert until(lambda: busy.stats()["waiting"] == 3)
        with capped(busy, "routing.max_waiting=2", cap=0) as gateway, RawClient(gateway.port) as client:
            assert 3 == nodes(gateway)[0]["waiting"]
            client.send(asked("waits", max_tokens=1))
            assert in_line(gateway, 1)
            assert 4 == busy.stats()["requests"]
            directly.close()
            assert 200 == client.answer().status
            assert is_idle(gateway)
