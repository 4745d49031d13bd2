"""A client that leaves, wherever its request is: what it held is free within a second, on both sides.

`test_disconnect` says what becomes of its turn; here is what becomes of counters, slots and leases.
"""

import time
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from tests.gateway_books import is_idle, metric, nodes, statuses
from tests.gateway_process import Gateway, Stub, until
from tests.raw_http import RawClient, chat, request

WITHIN_S = 3.0
"""At once, on busy processors too; shorter than a lease, which would free a conversation by itself."""
STUB = {"decode_rate": 20.0, "answer_tokens": 10}


@dataclass(frozen=True)
class Phase:
    """Where a request is when its client leaves."""

    fault: dict[str, Any] | None
    stream: bool
    reads: bytes = b""
    """What the client has seen of it."""


PHASES = {
    "before the head, streamed": Phase({"kind": "slow_headers", "seconds": 30}, stream=True),
    "before the head, whole": Phase({"kind": "slow_headers", "seconds": 30}, stream=False),
    "before the first token": Phase({"kind": "stall_after_chunks", "chunks": 0}, stream=True),
    "in mid-stream": Phase(None, stream=True, reads=b'"content":"'),
    "in mid-stream, stalled": Phase(
        {"kind": "stall_after_chunks", "chunks": 3}, stream=True, reads=b"content"
    ),
    "while a whole answer is written": Phase(None, stream=False),
    "in the middle of a whole answer": Phase({"kind": "stall_after_chunks"}, stream=False),
}


def asked(text: str, conversation: str = "", **fields: Any) -> bytes:
    """One chat; without a conversation a stateless one."""
    return request(chat(text, **fields), headers={"x-session-id": conversation} if conversation else {})


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_everything_is_given_back(gateway: Gateway, stub: Stub, phase: Phase, *, remembered: bool) -> None:
    """The engine stops, the node's counters are at zero, the conversation can be written at once."""
    conversation = uuid.uuid4().hex if remembered else ""
    stub.set_faults(*[{**phase.fault, "times": 1}] if phase.fault else [])
    before, ended, left = stub.stats(), statuses(gateway), 499
    with RawClient(gateway.port) as client:
        client.send(asked("leaves", conversation, stream=phase.stream, max_tokens=100))
        assert until(lambda: stub.stats()["requests"] > before["requests"])
        time.sleep(0.05)
        if phase.reads:
            client.read_some(phase.reads)
        assert 1 == nodes(gateway)[0]["running"]
    stopped = until(lambda: stub.stats()["aborted"] > before["aborted"], within_s=WITHIN_S)
    stub.set_faults()

    assert stopped
    assert 0 == stub.stats()["running"]
    assert until(lambda: is_idle(gateway), within_s=WITHIN_S)
    assert {left: 1} == dict(statuses(gateway) - ended)
    assert [("closed", True)] == [(node["breaker"], node["healthy"]) for node in nodes(gateway)]
    started = time.monotonic()
    with RawClient(gateway.port) as client:
        client.send(asked("next", conversation, max_tokens=1))
        assert 200 == client.answer().status
    assert time.monotonic() - started < WITHIN_S


def test_while_its_conversation_is_written(gateway: Gateway, stub: Stub) -> None:
    """It never reaches a node, holds nothing, and the one behind it moves up."""
    conversation, before = uuid.uuid4().hex, stub.stats()["requests"]
    with RawClient(gateway.port) as writer, RawClient(gateway.port) as behind:
        writer.send(asked("writes", conversation, stream=True, max_tokens=20))
        writer.read_some(b'"content":"')
        with RawClient(gateway.port) as leaver:
            leaver.send(asked("leaves", conversation))
            time.sleep(0.1)
            behind.send(asked("stays", conversation, max_tokens=1))
            time.sleep(0.1)
        assert 1 == nodes(gateway)[0]["running"]
        assert 200 == behind.answer().status

    assert before + 2 == stub.stats()["requests"]
    assert is_idle(gateway)
    assert 0 == metric(gateway, "friendo_queue_length")
