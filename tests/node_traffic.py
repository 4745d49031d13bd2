"""Chats that go on while a test does something to the nodes, and what became of each."""

import contextlib
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.gateway_process import Gateway

ANSWERED_WITHIN_S = 60.0


@dataclass(slots=True)
class Traffic:
    """What came of the requests so far. Only whole answers count as answered."""

    gateway: Gateway
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def ask(self, client: httpx.Client) -> None:
        """One streamed chat of nobody in particular."""
        body = {
            "model": "stub",
            "stream": True,
            "messages": [{"role": "user", "content": f"hello {uuid.uuid4()}"}],
        }
        try:
            answer = client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
            return
        if answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n"):
            self.answered += 1
        else:
            self.failed.append(f"{answer.status_code} {answer.text[-300:]}")

    def go_on(self) -> None:
        """Ask again and again until it is over."""
        with httpx.Client(base_url=self.gateway.url, timeout=ANSWERED_WITHIN_S, trust_env=False) as client:
            while not self.is_over.is_set():
                self.ask(client)


@contextlib.contextmanager
def traffic(gateway: Gateway, *, clients: int = 4) -> Iterator[Traffic]:
    """Chats until the block is left; then all of them have ended."""
    going = Traffic(gateway)
    threads = [threading.Thread(target=going.go_on) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield going
    finally:
        going.is_over.set()
        for thread in threads:
            thread.join(ANSWERED_WITHIN_S)


@dataclass(slots=True)
class Control:
    """A gateway's control plane, as far as nodes go."""

    client: httpx.Client

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Every node by its id."""
        return {node["id"]: node for node in self.client.get("/admin/nodes").json()["data"]}

    def states(self) -> dict[str, str]:
        """How each node is, in a word."""
        return {name: _state(node) for name, node in self.nodes().items()}

    def add(self, url: str, **fields: Any) -> httpx.Response:
        """Add a node, by default of vLLM."""
        return self.client.post("/admin/nodes", json={"engine": "vllm", "url": url, **fields})

    def drain(self, name: str, **fields: Any) -> httpx.Response:
        """Drain a node."""
        return self.client.post(f"/admin/nodes/{name}/drain", json=fields)

    def undrain(self, name: str) -> httpx.Response:
        """Let it have requests again."""
        return self.client.post(f"/admin/nodes/{name}/undrain")

    def remove(self, name: str) -> httpx.Response:
        """Remove it."""
        return self.client.delete(f"/admin/nodes/{name}")


@contextlib.contextmanager
def control(gateway: Gateway) -> Iterator[Control]:
    """The control plane of a gateway that asks for no keys."""
    with httpx.Client(base_url=gateway.admin_url, timeout=30, trust_env=False) as client:
        yield Control(client)


def name_of(url: str) -> str:
    """What a node at this address is called."""
    return url.removeprefix("http://")


def spread(gateway: Gateway, count: int) -> Counter[str]:
    """On how many of so many chats each node answered, by what the control plane counts."""
    with httpx.Client(base_url=gateway.admin_url, timeout=30, trust_env=False) as client:
        before = _answers(client)
        going = Traffic(gateway)
        with httpx.Client(base_url=gateway.url, timeout=ANSWERED_WITHIN_S, trust_env=False) as chats:
            for _ in range(count):
                going.ask(chats)
        assert [] == going.failed
        return _answers(client) - before


def _answers(client: httpx.Client) -> Counter[str]:
    answers: Counter[str] = Counter()
    for tally in client.get("/admin/cache").json()["by"]:
        answers[tally["node"]] += tally["answers"]
    return answers


def _state(node: dict[str, Any]) -> str:
    if node["removing"]:
        return "removing"
    return "draining" if node["draining"] else "healthy" if node["healthy"] else "away"
