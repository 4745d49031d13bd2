"""What tests say to a stub node and read from it: bodies, event streams, metrics, states."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from bench.stub_node.server import LocalStub, serve
from bench.stub_node.spec import StubSpec

CHAT = "/v1/chat/completions"

Said = dict[str, Any]


@asynccontextmanager
async def local_node(**traits: Any) -> AsyncIterator[tuple[LocalStub, httpx.AsyncClient]]:
    """A stub node in this process, with the traits of a StubSpec, and a client that speaks to it."""
    async with (
        serve(StubSpec(**traits)) as stub,
        httpx.AsyncClient(base_url=stub.url, trust_env=False, timeout=20) as client,
    ):
        yield stub, client


def user(text: str, **more: Any) -> Said:
    """A chat body with one user message."""
    return {"messages": [{"role": "user", "content": text}], **more}


def events(body: str) -> list[Said]:
    """The events of a finished stream. Raises ValueError when it does not end with [DONE]."""
    lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    if not lines or lines[-1] != "[DONE]":
        raise ValueError(f"the stream has no [DONE] at its end: {body[-200:]!r}")
    return [json.loads(line) for line in lines[:-1]]


def streamed_text(chunks: list[Said]) -> str:
    """The content of a chat stream's chunks, joined."""
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """The one sample of a metric. Raises ValueError when there is not exactly one."""
    lines = (await client.get("/metrics")).text.splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name]
    if len(values) != 1:
        raise ValueError(f"{len(values)} samples of {name} where one was expected")
    return values[0]


async def until(true: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Wait for a state that is bound to come. Raises TimeoutError when it does not."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  what is watched are plain counters of the node, which no event follows
            await asyncio.sleep(0.005)
