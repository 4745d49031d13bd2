"""Stub nodes in this process, gateways of their own before them, and dialogues that go round the gateways.

The stubs share the event loop of the test, so that eight of them cost no process each; what they cache is
accounted exactly, and they take as long for a prompt as their rate says. A dialogue knows what every node
computed of it, so a follow-up's hit can be held against the best that there was.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from bench.stub_node.server import LocalStub, serve
from bench.stub_node.spec import StubSpec
from tests.gateway_process import Gateway, running_gateway
from tests.ports import free_port

BLOCK = 16
"""Tokens in a cache block of a stub that plays vLLM."""
WARM = 0.9
"""A turn is warm that finds so much of what some node has of its dialogue."""
ANSWERED_WITHIN_S = 60.0
_WORDS = ("river", "stone", "light", "garden", "letter", "window", "silver", "morning", "paper", "winter")
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=200, keepalive_expiry=5.0)


def words(count: int, seed: object) -> str:
    """A text of so many tokens, another one for every seed."""
    drawn = random.Random(str(seed))
    return " ".join((f"{drawn.randrange(1000)}", *drawn.choices(_WORDS, k=count - 1)))


@dataclass(slots=True)
class Turn:
    """One request as its client saw it."""

    asked_at: float
    node: str = ""
    route: str = ""
    status: int = 0
    code: str = ""
    """Of the error, if it was one."""
    has_begun: bool = False
    """Whether a piece of the answer came."""
    is_whole: bool = False
    is_forgetful: bool = False
    """Answered without memory, as its header says."""
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    best: int = 0
    """Tokens of its prompt that some node had of the dialogue: the most that it could find."""
    first_at: float = 0.0
    retry_after_s: float = 0.0
    said: str = ""

    @property
    def is_warm(self) -> bool:
        """Whether it found what there was."""
        return self.cached >= WARM * self.best

    def read(self, line: str) -> None:
        """Take one line of the stream."""
        if line == "data: [DONE]":
            self.is_whole = True
        elif line.startswith("data: "):
            self.take(msgspec.json.decode(line[6:]))

    def take(self, said: dict[str, Any]) -> None:
        """Take an event, or a whole answer."""
        if (error := said.get("error")) is not None:
            self.code = error["code"] or error["type"]
        if usage := said.get("usage"):
            self.prompt, self.completion = usage["prompt_tokens"], usage["completion_tokens"]
            self.cached = usage["prompt_tokens_details"]["cached_tokens"]
        for choice in said.get("choices", ()):
            piece = (choice.get("delta") or choice.get("message") or {}).get("content")
            if piece:
                self.first_at = self.first_at or time.monotonic()
                self.has_begun, self.said = True, self.said + piece


@dataclass(slots=True)
class Talk:
    """One dialogue, remembered by the gateways under its name or sent as a whole each time."""

    name: str
    persona: str
    is_remembered: bool = True
    words: int = 60
    """In each message."""
    dialogue: list[dict[str, str]] = field(default_factory=list)
    """What was said and answered so far."""
    turns: list[Turn] = field(default_factory=list)
    """Every request, whatever came of it."""
    has: dict[str, int] = field(default_factory=dict)
    """Tokens of it that each node has computed."""

    @property
    def home(self) -> str:
        """The node that answered last."""
        return next((turn.node for turn in reversed(self.turns) if turn.is_whole), "")

    @property
    def number(self) -> int:
        """Messages that were answered."""
        return sum(message["role"] == "user" for message in self.dialogue)

    def followups(self) -> list[Turn]:
        """Whole turns of which some node had something."""
        return [turn for turn in self.turns if turn.is_whole and turn.best]

    async def say(self, client: httpx.AsyncClient, *, stream: bool = True) -> Turn:
        """One request. What is answered with its memory belongs to the dialogue from then on."""
        text = words(self.words, (self.name, self.number))
        new = [{"role": "user", "content": text}]
        if not self.dialogue:
            new.insert(0, {"role": "system", "content": self.persona})
        headers = {"idempotency-key": f"{self.name} {self.number}"}
        headers |= {"x-session-id": self.name} if self.is_remembered else {}
        body: dict[str, Any] = {"model": "stub", "stream": stream}
        body |= {"stream_options": {"include_usage": True}} if stream else {}
        body["messages"] = new if self.is_remembered else [*self.dialogue, *new]
        turn = Turn(time.monotonic(), best=max(map(_blocks, self.has.values()), default=0))
        self.turns.append(turn)
        try:
            await _ask(client, headers, body, turn)
        except httpx.HTTPError as error:
            turn.code = turn.code or type(error).__name__
        if turn.is_whole and turn.prompt:
            self._learn(turn, new)
        return turn

    def _learn(self, turn: Turn, new: Sequence[dict[str, str]]) -> None:
        if turn.is_forgetful:
            return
        self.has[turn.node] = turn.prompt + turn.completion
        self.dialogue += [*new, {"role": "assistant", "content": turn.said}]


def _blocks(tokens: int) -> int:
    """Of so many tokens that were computed, the last one is not stored, and only whole blocks are."""
    return (tokens - 1) // BLOCK * BLOCK


async def _ask(client: httpx.AsyncClient, headers: dict[str, str], body: dict[str, Any], turn: Turn) -> None:
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        turn.status, told = answer.status_code, answer.headers
        turn.node = told.get("x-friendo-node", "")
        turn.route = told.get("x-friendo-route", "")
        turn.is_forgetful = told.get("x-friendo-memory") == "unavailable"
        turn.retry_after_s = float(told.get("retry-after-ms", 0)) / 1000
        if told["content-type"].startswith("text/event-stream"):
            async for line in answer.aiter_lines():
                turn.read(line)
        else:
            turn.take(msgspec.json.decode(await answer.aread()))
            turn.is_whole = answer.status_code == 200


@dataclass(slots=True)
class Stubs:
    """Stub nodes in this process, each at a port of its own that it keeps over a restart."""

    spec: StubSpec
    ports: list[int]
    stacks: dict[int, AsyncExitStack] = field(default_factory=dict)
    nodes: dict[str, LocalStub] = field(default_factory=dict)
    """By the name that gateways give them."""

    async def start(self, port: int) -> None:
        """With an empty cache."""
        stack = self.stacks[port] = AsyncExitStack()
        self.nodes[f"127.0.0.1:{port}"] = await stack.enter_async_context(serve(self.spec, port=port))

    async def stop(self, port: int) -> None:
        """As a crash would: connections are cut, and nobody listens any more."""
        await self.stacks.pop(port).aclose()

    @property
    def urls(self) -> list[str]:
        """Where they are."""
        return [node.url for node in self.nodes.values()]

    def computed(self) -> dict[str, int]:
        """Tokens that each has computed since its start."""
        totals = {name: stub.node.engine.totals for name, stub in self.nodes.items()}
        return {name: total.prompt_tokens - total.cached_tokens for name, total in totals.items()}

    def requests(self) -> dict[str, int]:
        """Requests that each got since its start."""
        return {name: stub.node.traffic.requests for name, stub in self.nodes.items()}


@asynccontextmanager
async def running_stubs(count: int, spec: StubSpec) -> AsyncIterator[Stubs]:
    """So many nodes of one spec."""
    stubs = Stubs(spec, [free_port() for _ in range(count)])
    try:
        for port in stubs.ports:
            await stubs.start(port)
        yield stubs
    finally:
        for stack in list(stubs.stacks.values()):
            await stack.aclose()


@dataclass(slots=True)
class Replicas:
    """Gateways over one store, and a client of each."""

    gateways: list[Gateway]
    clients: list[httpx.AsyncClient]

    def for_turn(self, talk: Talk) -> httpx.AsyncClient:
        """Round-robin for each dialogue: whoever asks again, too, asks the next one."""
        return self.clients[(len(talk.turns) + hash_of(talk.name)) % len(self.clients)]


@asynccontextmanager
async def running_replicas(urls: Iterable[str], *options: tuple[str, ...]) -> AsyncIterator[Replicas]:
    """A gateway for each tuple of options. The stubs answer them meanwhile, so all waiting is aside."""
    nodes = [f"vllm={url}" for url in urls]
    async with AsyncExitStack() as stack:
        gateways, clients = [], []
        for one in options:
            process = running_gateway(*nodes, options=one)
            gateways.append(await asyncio.to_thread(process.__enter__))
            stack.push_async_callback(asyncio.to_thread, process.__exit__, None, None, None)
            client = httpx.AsyncClient(
                base_url=gateways[-1].url, timeout=ANSWERED_WITHIN_S, limits=_LIMITS, trust_env=False
            )
            clients.append(await stack.enter_async_context(client))
        yield Replicas(gateways, clients)


async def pause(seconds: float, is_over: asyncio.Event) -> None:
    """What a user needs to read and type, unless it is over before."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(is_over.wait(), seconds)


def hash_of(name: str) -> int:
    """A number that stays the same in every process."""
    return sum(name.encode())


def spread(counts: Iterable[float]) -> float:
    """The largest over the mean."""
    numbers = list(counts)
    return max(numbers) * len(numbers) / sum(numbers)


def precision(turns: Iterable[Turn]) -> float:
    """The share of follow-ups that found what some node had of their dialogue."""
    warm = Counter(turn.is_warm for turn in turns)
    return warm[True] / (warm[True] + warm[False])
