"""Each way in which a node fails: what the client sees, what is kept, what comes next, what is counted.

Deadlines are settings, so 120 s of silence are half a second here. A node that fails while another one is
there is tested too: as long as nothing of an answer was sent, the client does not notice.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.gateway_books import events, is_idle, nodes, statuses
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.raw_http import Answer, RawClient, chat, request

STUB = {"answer_tokens": 60}
DEADLINES = ("connect_s=0.5", "first_byte_s=0.5", "idle_s=0.4", "total_s=20")
GATEWAY = tuple(part for one in DEADLINES for part in ("--set", f"relay.{one}"))
BUSY = {"headers": {"retry-after": "7"}}


@dataclass(frozen=True)
class Row:
    """A fault, and what it looks like to a client that has this node alone."""

    fault: dict[str, Any]
    stream: bool
    status: int
    code: str
    counted: str
    """The event that is counted for the node."""
    seen: int = 0
    """Events of the answer that reach the client before the error."""


def rows(name: str, fault: dict[str, Any], counted: str, *, status: int, code: str, seen: int = 0) -> Any:
    """The row for a stream and the one for a whole answer, of which nothing is ever seen."""
    kinds = {"streamed": Row(fault, True, 200 if seen else status, code, counted, seen)}
    kinds["whole"] = Row(fault, False, status, code, counted)
    return {f"{name}, {kind}": row for kind, row in kinds.items()}


FAILED: dict[str, Any] = {"status": 502, "code": "node_failed"}
OVERLOADED: dict[str, Any] = {"status": 503, "code": "server_is_overloaded"}
TABLE: dict[str, Row] = {
    **rows("silent", {"kind": "silence"}, "node_silent", **FAILED),
    **rows("slow headers", {"kind": "slow_headers", "seconds": 30}, "node_silent", **FAILED),
    **rows("cut at once", {"kind": "cut_after_chunks"}, "node_broke", **FAILED),
    **rows("cut after 40", {"kind": "cut_after_chunks", "chunks": 40}, "node_broke", seen=40, **FAILED),
    **rows("stalls at once", {"kind": "stall_after_chunks"}, "node_silent", **FAILED),
    **rows("20, then stall", {"kind": "stall_after_chunks", "chunks": 20}, "node_silent", seen=20, **FAILED),
    **rows("500", {"kind": "status", "status": 500}, "node_fault", **FAILED),
    **rows("429", {"kind": "status", "status": 429, **BUSY}, "node_busy", **OVERLOADED),
    **rows("503", {"kind": "status", "status": 503, **BUSY}, "node_busy", **OVERLOADED),
}  # fmt: skip
BEFORE_FIRST_BYTE = {name: row for name, row in TABLE.items() if not row.seen}


@pytest.fixture(scope="module")
def other() -> Iterator[Stub]:
    """A second node."""
    with running_stub(**STUB) as node:
        yield node


@pytest.fixture(scope="module")
def gateway_of_two(stub: Stub, other: Stub) -> Iterator[Gateway]:
    """A gateway over both."""
    with running_gateway(f"vllm={stub.url}", f"vllm={other.url}", options=GATEWAY) as process:
        yield process


def ask(gateway: Gateway, text: str, conversation: str = "", **fields: Any) -> Answer:
    """One chat."""
    headers = {"x-session-id": conversation} if conversation else {}
    with RawClient(gateway.port) as client:
        client.send(request(chat(text, **fields), headers=headers))
        return client.answer()


def turn(gateway: Gateway, text: str, conversation: str) -> list[dict[str, str]]:
    """A turn without fault, and what of it the next prompt holds: nothing, without a conversation."""
    answer = ask(gateway, text, conversation, max_tokens=2)
    assert 200 == answer.status
    said = answer.json()["choices"][0]["message"]["content"]
    stored = [{"role": "user", "content": text}, {"role": "assistant", "content": said}]
    return stored if conversation else []


def error_of(answer: Answer, row: Row) -> dict[str, Any]:
    """The error, whichever way it came. Before it stands what was seen of the answer, and no end."""
    if not row.seen:
        assert answer.is_whole
        assert answer.headers["x-should-retry"] == "true"
        return dict(json.loads(answer.body)["error"])
    *sent, last = answer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert row.seen == len(sent)
    assert all(json.loads(one.removeprefix(b"data: "))["choices"][0]["finish_reason"] is None for one in sent)
    assert b"[DONE]" not in answer.body
    assert answer.is_whole
    return dict(json.loads(last.removeprefix(b"data: "))["error"])


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_fault_of_the_only_node(gateway: Gateway, stub: Stub, row: Row, *, remembered: bool) -> None:
    """An error with all four fields; nothing lost, nothing kept that should not be; and life goes on."""
    conversation = uuid.uuid4().hex if remembered else ""
    kept = turn(gateway, "kept", conversation)
    before, ended = events(gateway), statuses(gateway)
    stub.set_faults({**row.fault, "times": 1})
    answer = ask(gateway, "lost", conversation, stream=row.stream)
    stub.set_faults()
    error = error_of(answer, row)

    assert (row.status, row.code) == (answer.status, error["code"])
    assert {"message", "type", "param", "code"} == set(error)
    assert {row.counted: 1} == dict(events(gateway) - before)
    assert {502 if row.seen else row.status: 1} == dict(statuses(gateway) - ended)
    if row.code == "server_is_overloaded":
        assert ("7000", "7") == (answer.headers["retry-after-ms"], answer.headers["retry-after"])
    assert is_idle(gateway)
    assert [(True, "closed")] == [(node["healthy"], node["breaker"]) for node in nodes(gateway)]
    assert until(lambda: stub.stats()["running"] == 0)
    assert 200 == ask(gateway, "next", conversation, max_tokens=1).status
    assert [*kept, {"role": "user", "content": "next"}] == stub.prompts()[-1]


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
@pytest.mark.parametrize("row", BEFORE_FIRST_BYTE.values(), ids=BEFORE_FIRST_BYTE)
def test_another_node_answers(
    gateway_of_two: Gateway, stub: Stub, other: Stub, row: Row, *, remembered: bool
) -> None:
    """The client does not notice, the turn is stored once, and the first node stays in use."""
    gateway, conversation = gateway_of_two, uuid.uuid4().hex if remembered else ""
    before, ended, asked = events(gateway), statuses(gateway), stub.stats()["requests"]
    kept = turn(gateway, "again", conversation)
    first, second = (stub, other) if stub.stats()["requests"] > asked else (other, stub)
    first.set_faults({**row.fault, "times": 1})
    answer = ask(gateway, "again", conversation, stream=row.stream, max_tokens=2)
    first.set_faults()

    assert (200, "failover") == (answer.status, answer.headers["x-friendo-route"])
    assert answer.body.endswith(b"data: [DONE]\n\n") == row.stream
    assert {row.counted: 1, "failover": 1} == dict(events(gateway) - before)
    assert {200: 2} == dict(statuses(gateway) - ended)
    assert is_idle(gateway)
    assert [True, True] == [node["healthy"] for node in nodes(gateway)]
    new = {"role": "user", "content": "again"}
    assert [*kept, new] == second.prompts()[-1]
    kept += [new, kept[1]] if remembered else []
    assert 200 == ask(gateway, "again", conversation, max_tokens=2).status
    assert [*kept, new] in (first.prompts()[-1], second.prompts()[-1])


BROKEN: dict[str, Any] = {"kind": "broken_chunk_after", "chunks": 5, "times": 1}


def test_broken_chunk_is_passed_on_without_a_conversation(gateway: Gateway, stub: Stub) -> None:
    """The client reads what the node wrote, to its end: nothing is parsed on the way."""
    stub.set_faults(BROKEN)
    answer = ask(gateway, "hello", stream=True)

    assert 5 == answer.body.partition(b'data: {"choices":[{"delta":{"content":"brok\n\n')[0].count(b"data: ")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert is_idle(gateway)


def test_broken_chunk_ends_a_conversations_answer_with_an_error(gateway: Gateway, stub: Stub) -> None:
    """What cannot be read cannot be kept, so the client is not told that it was."""
    conversation = uuid.uuid4().hex
    kept = turn(gateway, "kept", conversation)
    ended = statuses(gateway)
    stub.set_faults(BROKEN)
    answer = ask(gateway, "lost", conversation, stream=True)

    *_, last = answer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert "node_failed" == json.loads(last.removeprefix(b"data: "))["error"]["code"]
    assert b"[DONE]" not in answer.body
    assert b'"finish_reason":"stop"' not in answer.body
    assert {502: 1} == dict(statuses(gateway) - ended)
    assert is_idle(gateway)
    assert 200 == ask(gateway, "next", conversation, max_tokens=1).status
    assert [*kept, {"role": "user", "content": "next"}] == stub.prompts()[-1]


@pytest.mark.parametrize("remembered", [False, True], ids=["stateless", "conversation"])
def test_broken_whole_answer_is_none(gateway: Gateway, stub: Stub, *, remembered: bool) -> None:
    """There is time to see it, so it is the node's failure."""
    stub.set_faults(BROKEN)
    answer = ask(gateway, "lost", uuid.uuid4().hex if remembered else "")

    assert (502, "node_failed") == (answer.status, answer.json()["error"]["code"])
    assert is_idle(gateway)
    assert 200 == ask(gateway, "next", max_tokens=1).status


@pytest.mark.parametrize("stream", [False, True])
def test_slow_headers_within_the_deadline_are_only_slow(
    gateway: Gateway, stub: Stub, *, stream: bool
) -> None:
    """A long prompt takes its time."""
    stub.set_faults({"kind": "slow_headers", "seconds": 0.2, "times": 1})
    before = events(gateway)

    assert 200 == ask(gateway, "hello", stream=stream).status
    assert not events(gateway) - before
