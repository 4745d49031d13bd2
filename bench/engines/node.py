"""A real engine that runs: on ports of its own, ready within a bounded time, gone with its starter."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.engines.launch import HOST, Ports, SglangTraits, VllmTraits, sglang, vllm
from bench.engines.places import Places
from bench.overhead.processes import free_port

READY_WITHIN_S = 240.0
ENDS_WITHIN_S = 20.0
POLLED_EVERY_S = 0.25
TAIL_LINES = 25
READY = {"vllm": "/health", "sglang": "/ready"}
"""SGLang's `/health` would generate a token and take a second."""
Traits = VllmTraits | SglangTraits


class NotReadyError(Exception):
    """An engine ended or did not become ready; the message has the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What an engine counted since its start: tokens of prompts, and those of them that it found cached."""

    prompt: int = 0
    cached: int = 0

    def __sub__(self, before: "Counters") -> "Counters":
        """What came since."""
        return Counters(self.prompt - before.prompt, self.cached - before.cached)

    def __add__(self, other: "Counters") -> "Counters":
        """Of two nodes."""
        return Counters(self.prompt + other.prompt, self.cached + other.cached)


COUNTED = {
    "vllm": ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"),
    "sglang": ("sglang:prompt_tokens_total", "sglang:cached_tokens_total"),
}


@dataclass(slots=True)
class EngineNode:
    """An engine of these traits. `start`, `ready`, `kill` and `start` again: the ports stay."""

    traits: Traits
    places: Places
    log: Path
    ports: Ports
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def engine(self) -> str:
        """`vllm` or `sglang`."""
        return self.traits.engine

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.ports.http}"

    @property
    def name(self) -> str:
        """What the gateway calls it."""
        return f"{HOST}:{self.ports.http}"

    def start(self) -> None:
        """Start it; returns before it is ready. It is killed with this process, however that ends."""
        launch = (
            vllm(self.traits, self.ports, self.places)
            if isinstance(self.traits, VllmTraits)
            else sglang(self.traits, self.ports, self.places)
        )
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "bench.engines.bound", *launch.command),
                stdin=subprocess.PIPE,  # never written to: see bench.engines.bound
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=self.log.parent,
                env={**os.environ, **launch.environment},
                start_new_session=True,
            )

    async def ready(self, *, within_s: float = READY_WITHIN_S) -> None:
        """Wait until it answers; NotReadyError if it ended, or not in time."""
        end = time.monotonic() + within_s
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=2.0) as client:
            while not await _answers(client, READY[self.engine]):
                assert self.process is not None
                if self.process.poll() is not None:
                    raise NotReadyError(f"{self.engine} ended with {self.process.returncode}\n{self.tail()}")
                if time.monotonic() > end:
                    raise NotReadyError(f"{self.engine} is not ready after {within_s:.0f} s\n{self.tail()}")
                await asyncio.sleep(POLLED_EVERY_S)

    def kill(self) -> None:
        """End it and everything it started at once, as a crash of the machine would."""
        self._signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            _close(self.process)

    def stop(self, *, within_s: float = ENDS_WITHIN_S) -> None:
        """End it in order, and at once what is still there afterwards."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.kill()

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([f"the end of {self.log}:", *lines])

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return  # nobody is left


@asynccontextmanager
async def running(
    *traits: Traits, places: Places, folder: Path, ports: tuple[Ports, ...] = ()
) -> AsyncIterator[tuple[EngineNode, ...]]:
    """Nodes of these traits, started together and ready; their logs lie in `folder`, named by their ports."""
    found = ports or tuple(unused_ports(one) for one in traits)
    nodes = tuple(
        EngineNode(one, places, folder / f"{one.engine}-{where.http}.log", where)
        for one, where in zip(traits, found, strict=True)
    )
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            await node.ready()
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def unused_ports(traits: Traits) -> Ports:
    """Ports on which nobody listens now. Ranks need theirs side by side: ask for them elsewhere then."""
    if isinstance(traits, SglangTraits) and traits.ranks > 1:
        raise ValueError("name the ports of a node with ranks: each rank publishes beside the one before")
    return Ports(free_port(), free_port(), free_port())


async def counters(node: EngineNode) -> Counters:
    """What the engine counted by its own metrics; of all ranks, since SGLang tells no rank's tokens apart."""
    async with httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=30.0) as client:
        answer = await client.get("/metrics")
    answer.raise_for_status()
    prompt, cached = (_total(answer.text, name) for name in COUNTED[node.engine])
    return Counters(prompt, cached)


def _total(metrics: str, name: str) -> int:
    """The sum over a counter's samples; 0 where none was counted yet."""
    samples = re.findall(rf"^{re.escape(name)}(?:\{{[^}}\n]*\}})? (\S+)", metrics, re.MULTILINE)
    return int(sum(map(float, samples)))


def _close(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()


async def _answers(client: httpx.AsyncClient, path: str) -> bool:
    try:
        return (await client.get(path)).status_code == 200
    except httpx.HTTPError:
        return False
