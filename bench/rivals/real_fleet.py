"""Real engines as the nodes of a run: their own caches, their own counters."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import httpx

from bench.engines.launch import MODEL_NAME, SglangTraits, VllmTraits
from bench.engines.node import EngineNode, counters, running
from bench.engines.places import Places
from bench.engines.recorder import Call, Recorder, recorded
from bench.rivals.tally import Count

Engine = Literal["vllm", "sglang"]

_FORGET = {"vllm": "/reset_prefix_cache", "sglang": "/flush_cache"}


class RealFleet:
    """Nodes of one real engine."""

    def __init__(self, nodes: Sequence[EngineNode], block: int, recorders: Sequence[Recorder] = ()) -> None:
        """`recorders`: one before each node, where token ids are to be noted."""
        self.engine: str = nodes[0].engine
        self.model = MODEL_NAME
        self.block = block
        self.urls: Sequence[str] = [one.url for one in recorders or nodes]
        self._nodes = nodes
        self._recorders = recorders

    async def forget(self) -> None:
        """Empty every cache. Raises `httpx.HTTPStatusError` where an engine is still at work."""
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
            for node in self._nodes:
                (await client.post(node.url + _FORGET[self.engine])).raise_for_status()
        self.taken()

    async def counts(self) -> list[Count]:
        """What each has done."""
        found = [await counters(node) for node in self._nodes]
        return [Count(prompt=one.prompt, cached=one.cached) for one in found]

    def taken(self) -> list[Call]:
        """What was noted since this was asked last."""
        calls = [call for one in self._recorders for call in one.calls]
        for one in self._recorders:
            one.calls.clear()
        return calls


@asynccontextmanager
async def real_fleet(  # noqa: PLR0913 - what a fleet is made of
    engine: Engine,
    count: int,
    *,
    kv_tokens: int,
    context: int,
    places: Places,
    folder: Path,
    is_recorded: bool = False,
) -> AsyncIterator[RealFleet]:
    """So many nodes with caches of so many tokens each: vLLM with blocks of 32, SGLang with pages of 16.

    `is_recorded`: with a recorder before each, so that token ids tell what each request could have found.
    """
    traits: VllmTraits | SglangTraits
    if engine == "vllm":
        traits = VllmTraits(kv_tokens=kv_tokens, context=context, is_dev=True)
        block = traits.block_size
    else:
        traits = SglangTraits(kv_tokens=kv_tokens, context=context)
        block = traits.page_size
    async with running(*[traits] * count, places=places, folder=folder) as nodes, AsyncExitStack() as stack:
        recorders = [
            await stack.enter_async_context(recorded(node.url, node=node.url))
            for node in (nodes if is_recorded else ())
        ]
        yield RealFleet(nodes, block, recorders)
