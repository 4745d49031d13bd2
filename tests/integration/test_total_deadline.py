"""One answer has so much time in all, whatever it is spent on: prefill, many words, node after node."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.gateway_process import Gateway, Stub, running_gateway, until
from tests.raw_http import CHAT, Answer, RawClient, chat, request
from tests.raw_node import running_raw_node

TOTAL_S = 1.0
ABORTED_WITHIN_S = 3.0
STUB = {"decode_rate": 20.0, "answer_tokens": 3}
GATEWAY = ("--set", f"relay.total_s={TOTAL_S}")


def ask(gateway: Gateway, conversation: str = "", **fields: Any) -> Answer:
    """One chat."""
    headers = {"x-session-id": conversation} if conversation else {}
    with RawClient(gateway.port) as client:
        client.send(request(chat(**fields), headers=headers))
        return client.answer()


def report(gateway: Gateway, path: str) -> Any:
    """Something of the control plane."""
    return httpx.get(f"{gateway.admin_url}/admin/{path}", trust_env=False).json()


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_answer_over_its_time_ends_with_an_error(
    gateway: Gateway, stub: Stub, *, stream: bool, remembered: bool
) -> None:
    """The node stops and is not blamed; the conversation is free, and the turn was not stored."""
    before, spent = stub.stats()["aborted"], report(gateway, "cache")["events"].get("out_of_time", 0)
    conversation = uuid.uuid4().hex if remembered else ""
    started = time.monotonic()
    late = ask(gateway, conversation, stream=stream, max_tokens=1000)
    waited = time.monotonic() - started

    assert waited > 0.9 * TOTAL_S
    assert b'"code":"deadline_exceeded"' in late.body
    assert b"[DONE]" not in late.body
    assert (200 if stream else 504) == late.status
    assert stream or late.headers["x-should-retry"] == "false"
    assert until(lambda: stub.stats()["aborted"] == before + 1, within_s=ABORTED_WITHIN_S)
    assert spent + 1 == report(gateway, "cache")["events"]["out_of_time"]
    assert [(True, 0)] == [(node["healthy"], node["running"]) for node in report(gateway, "nodes")["data"]]
    assert 200 == ask(gateway, conversation, text="next").status
    assert [{"role": "user", "content": "next"}] == stub.prompts()[-1]


def test_prefill_counts(gateway: Gateway, stub: Stub) -> None:
    """A node that does not even begin is within its own deadline, and yet over the answer's."""
    stub.set_faults({"kind": "slow_headers", "seconds": 30, "times": 1})
    late = ask(gateway)
    stub.set_faults()

    assert (504, "deadline_exceeded") == (late.status, late.json()["error"]["code"])


def test_nodes_tried_one_after_the_other_share_the_time() -> None:
    """The second one does not get it anew."""
    options = (*GATEWAY, "--set", f"relay.first_byte_s={0.7 * TOTAL_S}")
    with (
        running_raw_node(lambda line: line.send(b"")) as one,
        running_raw_node(lambda line: line.send(b"")) as other,
        running_gateway(f"vllm={one.url}", f"vllm={other.url}", options=options) as gateway,
    ):
        started = time.monotonic()
        late = ask(gateway)
        waited = time.monotonic() - started

    assert 2 == len(one.seen) + len(other.seen)
    assert (504, "deadline_exceeded") == (late.status, late.json()["error"]["code"])
    assert waited < 1.3 * TOTAL_S


def test_time_in_line_is_not_the_answers(gateway: Gateway) -> None:
    """Three answers of almost a second each, one after the other in one conversation."""
    conversation = uuid.uuid4().hex
    body = {"model": "stub", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 14}
    with (
        httpx.Client(base_url=gateway.url, headers={"x-session-id": conversation}, trust_env=False) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        statuses = list(pool.map(lambda _: client.post(CHAT, json=body).status_code, range(3)))

    assert [200, 200, 200] == statuses
