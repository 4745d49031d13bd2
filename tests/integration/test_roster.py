"""The roster over nodes that are away, of another engine, or answer anything at all."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.nodes import asking, connection
from gateway.nodes.connection import Patience
from gateway.nodes.roster import Roster
from gateway.routing.node import Engine, Node, NodeSpec
from tests.promised import promise

EVERY_S = 0.005
MODELS = json.dumps({"data": [{"id": "m"}]}).encode()


def whole(body: bytes, *, status: str = "200 OK", headers: bytes = b"") -> bytes:
    """A response with its length."""
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status.encode(), headers, len(body), body)


HEALTHY = {"/health": whole(b""), "/v1/models": whole(MODELS), "/metrics": whole(b"")}


@dataclass(slots=True)
class Answering:
    """A node that answers each path with these bytes, and hangs up after a wrong one."""

    url: str = ""
    answers: dict[str, bytes] = field(default_factory=lambda: dict(HEALTHY))
    slowly: bool = False
    asked: list[str] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                self.asked.append(path)
                answer = self.answers.get(path, whole(b"", status="404 Not Found"))
                await self._send(writer, answer)
                if answer != HEALTHY.get(path):
                    return

    async def _send(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        step = 1 if self.slowly else len(answer)
        for at in range(0, len(answer), step or 1):
            writer.write(answer[at : at + step])
            await writer.drain()
            await asyncio.sleep(0.02 if self.slowly else 0)


@contextlib.asynccontextmanager
async def answering() -> AsyncIterator[Answering]:
    """A node that is healthy until its answers are changed."""
    node = Answering()
    server = await asyncio.start_server(node.answer, "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield node


@contextlib.asynccontextmanager
async def polled(url: str, *, engine: Engine = "vllm", models: tuple[str, ...] = ()) -> AsyncIterator[Node]:
    """One node as the process keeps it: probed once, then polled in a task group that an error would end."""
    roster = Roster([NodeSpec(engine=engine, url=url, models=models)], Patience())
    await roster.probe_all()
    async with asyncio.TaskGroup() as tasks:
        polling = tasks.create_task(roster.run(every_s=EVERY_S))
        yield roster.nodes[0]
        assert not polling.done()
        polling.cancel()
    roster.close()


async def until(holds: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Wait for it. A bound, not an expectation."""
    for _ in range(int(within_s / EVERY_S)):
        if holds():
            return
        await asyncio.sleep(EVERY_S)
    assert holds(), "it did not come to hold in time"


async def polls(node: Answering, count: int) -> None:
    """Wait until the node was polled so many times more."""
    seen = len(node.asked)
    await until(lambda: node.asked[seen:].count("/health") >= count)


GARBAGE = {
    "no HTTP": b"\x16\x03\x01 SSH-2.0-dropbear\r\n" * 8,
    "noise": bytes(range(256)) * 64,
    "nothing": b"",
    "10 MB": whole(b"x" * 10_000_000),
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"x-more: more and more\r\n" * 10_000,
    "cut off": b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbut",
    "broken chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nbut",
    "a redirect": whole(b"", status="302 Found", headers=b"location: http://127.0.0.1:1/\r\n"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n\x00\x01",
    "two at once": whole(b"") + b"HTTP/1.1 500 ",
    "a page": whole(b"<!doctype html><style>body{margin:0}</style>" * 1000),
    "no UTF-8": whole(b'{"data": [{"id": "\xff\xfe"}]}'),
    "deep JSON": whole(b"[" * 100_000),
    "wrong types": whole(b'{"data": {"id": 7}}'),
    "wrong lengths": whole(b'{"data": [{"id": "m", "max_model_len": "long"}]}'),
    "numbers that cannot be": whole(
        b'vllm:num_requests_waiting{a="1"} 1e308\nvllm:num_requests_waiting{a="2"} 1e308\n'
        b"vllm:kv_cache_usage_perc 7e300\nvllm:kv_cache_usage_perc NaN\n"
        b'vllm:cache_config_info{block_size="999999999"} -inf\n'
    ),
}


@pytest.mark.parametrize(
    ("engine", "path"),
    [("vllm", "/health"), ("vllm", "/v1/models"), ("vllm", "/metrics"), ("openai", "/v1/models")],
)
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_no_answer_of_a_node_ends_the_polling(garbage: bytes, path: str, engine: Engine) -> None:
    """From its start and later; once the node answers as it should, it is healthy, and of sane load."""
    async with answering() as there:
        there.answers[path] = garbage
        async with polled(there.url, engine=engine) as node:
            await until(lambda: len(there.asked) >= 4)
            assert node.kv_usage is None or 0 <= node.kv_usage <= 1
            assert node.waiting is None or 0 <= node.waiting <= 1_000_000
            assert 1 <= node.block_size <= 1_000_000
            there.answers = dict(HEALTHY)
            await until(lambda: node.is_healthy)
            there.answers[path] = garbage
            seen = len(there.asked)
            await until(lambda: len(there.asked) >= seen + 4)
            there.answers = dict(HEALTHY)
            await until(lambda: node.is_healthy)


async def test_a_body_that_comes_by_the_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold up the polling for ever, and the node would stay what it was."""
    monkeypatch.setattr(asking, "_WITHIN_S", 0.1)
    async with answering() as there:
        there.slowly = True
        async with polled(there.url) as node:
            assert node.problem == "/health was not answered whole within 0.1 s"
            there.slowly = False
            await until(lambda: node.is_healthy)


async def test_counters_that_go_back_tell_of_a_restart() -> None:
    """The cache is empty then, although no event said so: nothing from before is counted on."""
    async with answering() as there, polled(there.url) as node:
        there.answers["/metrics"] = whole(b"vllm:prompt_tokens_total 500\n")
        await polls(there, 2)
        assert 0 == node.retention.knowledge(time.monotonic()).epoch
        there.answers["/metrics"] = whole(b"vllm:prompt_tokens_total 20\n")
        await until(lambda: node.retention.knowledge(time.monotonic()).epoch == 1)
        known = node.retention.knowledge(time.monotonic())
        assert ("unknown", 0.0) == (known.state, known.vouched_s)
        assert 0 == promise(1000, known.cleared_s + 1, known)
        assert 1000 == promise(1000, known.cleared_s / 2, known)


OLLAMA = {
    "/v1/models": whole(
        b'{"object":"list","data":[{"id":"m:latest","object":"model","owned_by":"library"}]}'
    ),
    "/api/version": whole(b'{"version":"0.12.6"}'),
    "/api/ps": whole(b'{"models":[]}'),
}


async def test_the_context_of_ollama_is_learnt_once_it_has_loaded_the_model() -> None:
    """Until then the operator is told that it cuts without a word."""
    async with answering() as there:
        there.answers = dict(OLLAMA)
        async with polled(there.url, engine="openai") as node:
            assert ("Ollama", "0.12.6", None) == (node.facts.product, node.facts.version, node.max_context)
            assert "OLLAMA_CONTEXT_LENGTH" in node.notes[0]
            there.answers["/api/ps"] = whole(b'{"models":[{"name":"m:latest","context_length":4096}]}')
            await until(lambda: node.max_context == 4096)
            await until(lambda: not node.notes)


def told(logs: list[Any]) -> list[dict[str, Any]]:
    """The warnings about nodes, without what every line has."""
    return [{key: entry[key] for key in entry if key != "log_level"} for entry in logs]


async def test_a_node_that_was_never_there_is_logged_once_and_so_is_its_arrival(unused_port: int) -> None:
    """Which node, what was tried, what to check; not again at every poll."""
    url = f"http://127.0.0.1:{unused_port}"
    there = Answering(url)
    with capture_logs() as logs:
        async with polled(url, models=("m",)) as node:
            await until(lambda: node.failures >= 5)
            away = told(logs)
            server = await asyncio.start_server(there.answer, "127.0.0.1", unused_port)
            async with server:
                await until(lambda: node.is_healthy)

    assert [away[0].pop("problem")[:15]] == ["no connection: "]
    assert away == [
        {
            "event": "node is away",
            "node": f"127.0.0.1:{unused_port}",
            "tried": f"GET {url}/health",
            "check": "is it running, and is this its address?",
        }
    ]
    assert told(logs)[1:2] == [
        {"event": "node is healthy", "node": f"127.0.0.1:{unused_port}", "models": "m"}
    ]


@pytest.mark.parametrize(
    ("engine", "models", "answers", "line"),
    [
        (
            "sglang",
            (),
            {},
            {
                "problem": "/ready answered 404",
                "tried": "/ready",
                "check": "does an inference server listen there, and is its engine sglang?",
            },
        ),
        (
            "vllm",
            (),
            {"/v1/models": whole(b"{}", status="401 Unauthorized")},
            {
                "problem": "/v1/models answered 401",
                "tried": "/v1/models",
                "check": "the api_key that the configuration has for it",
            },
        ),
        (
            "vllm",
            ("other",),
            {},
            {
                "problem": "it does not serve other; it serves m",
                "tried": "/v1/models",
                "check": "the models that the configuration names for it",
            },
        ),
    ],
    ids=["wrong engine", "wrong key", "wrong model"],
)
async def test_a_node_that_is_not_what_it_is_said_to_be_is_logged_once(
    engine: Engine, models: tuple[str, ...], answers: dict[str, bytes], line: dict[str, str]
) -> None:
    """With what to look at in the configuration."""
    with capture_logs() as logs:
        async with answering() as there:
            there.answers |= answers
            async with polled(there.url, engine=engine, models=models) as node:
                await until(lambda: node.failures >= 5)
                assert not node.is_healthy

    seen = {**line, "tried": f"GET {there.url}{line['tried']}"}
    assert told(logs) == [{"event": "node is away", "node": node.id, **seen}]


async def test_every_new_problem_of_a_node_is_logged_up_to_a_bound() -> None:
    """First it does not answer, then it answers something else; its own words may change for ever."""
    with capture_logs() as logs:
        async with answering() as there:
            there.answers["/health"] = whole(b"", status="500 Oh")
            async with polled(there.url):
                for status in (501, 502, 501, 504, 505, 506):
                    there.answers["/health"] = whole(b"", status=f"{status} Oh")
                    await polls(there, 2)

    problems = [entry["problem"] for entry in logs]
    assert problems == [f"/health answered {status}" for status in (500, 501, 502, 504)]


@contextlib.asynccontextmanager
async def kept(*urls: str) -> AsyncIterator[Roster]:
    """A roster that is polled in a task group of the process."""
    roster = Roster([NodeSpec(engine="vllm", url=url) for url in urls], Patience())
    async with asyncio.TaskGroup() as tasks:
        polling = tasks.create_task(roster.run(every_s=EVERY_S))
        yield roster
        assert not polling.done()
        polling.cancel()
    roster.close()


async def test_nodes_come_and_go_while_others_are_polled() -> None:
    """A view of them by id shows it at once; one that is gone is asked no more."""
    async with answering() as one, answering() as other, kept(one.url) as roster:
        view = roster.by_id
        added = roster.add(NodeSpec(engine="vllm", url=other.url, id="other"))
        assert not added.is_healthy
        assert [added] == [node for name, node in view.items() if name == "other"]
        with pytest.raises(ValueError, match="two nodes are called 'other'"):
            roster.add(NodeSpec(engine="vllm", url=other.url, id="other"))
        await until(lambda: added.is_healthy)
        roster.remove("other")
        await until(lambda: "other" not in view)
        asked = len(other.asked)
        await polls(one, 3)
        assert asked == len(other.asked)
        assert not roster.add(NodeSpec(engine="vllm", url=other.url, id="other")).is_draining
        await until(lambda: view["other"].is_healthy)


async def test_a_drain_and_a_removal_wait_for_what_runs() -> None:
    """Bound conversations are told at once that they have to go elsewhere, and only once."""
    lost: list[str] = []
    removed: list[str] = []
    async with answering() as there, kept(there.url) as roster:
        (node,) = roster.nodes
        roster.on_lost, roster.on_removed = lost.append, removed.append
        await until(lambda: node.is_healthy)
        node.running = 1
        roster.drain(node.id)
        roster.remove(node.id)
        assert ([node.id], True) == (lost, node.is_draining)
        await polls(there, 3)
        assert ([], True) == (removed, node.id in roster.by_id)
        node.running = 0
        await until(lambda: node.id not in roster.by_id)
        assert [node.id] == removed


async def test_an_undrain_takes_back_a_bound() -> None:
    """Nothing is broken off any more."""
    async with answering() as there, kept(there.url) as roster:
        (node,) = roster.nodes
        await until(lambda: node.is_healthy)
        node.running = 1
        broken_off: list[str] = []
        roster.pool(node.id).break_off = broken_off.append  # type: ignore[method-assign] # to see a call
        roster.drain(node.id, within_s=0.15)
        roster.undrain(node.id)
        await asyncio.sleep(0.4)
        assert ([], False) == (broken_off, node.is_draining)
        roster.drain(node.id, within_s=0.0)
        await until(lambda: bool(broken_off))
        node.running = 0


async def test_a_node_at_a_link_local_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name is: the address is looked at once there is a connection, before anything is sent."""
    monkeypatch.setattr(connection, "is_link_local", lambda address: address == "127.0.0.1")
    async with answering() as there, kept(there.url) as roster:
        (node,) = roster.nodes
        await until(lambda: node.failures >= 2)
        assert "link-local" in node.problem
        assert [] == there.asked
