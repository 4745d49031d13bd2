"""The nodes that everybody is put in front of: what an arm must be able to ask of them, and stub nodes.

Real engines are in `real_fleet`. Both count what they did by their own counters.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from bench.engines.recorder import Call
from bench.rivals.tally import Count
from bench.stub_node.process import StubProcess, start_stub
from bench.stub_node.spec import StubSpec


class Fleet(Protocol):
    """Nodes of one engine that serve one model."""

    engine: str
    model: str
    block: int
    urls: Sequence[str]

    async def forget(self) -> None:
        """Empty every cache."""

    async def counts(self) -> list[Count]:
        """What each has done since it was started."""

    def taken(self) -> list[Call]:
        """The requests whose token ids were noted since this was asked last; none where nobody notes them."""


class StubFleet:
    """Stub nodes: block-exact caches, exact counts, as long for a prompt as their rate says."""

    def __init__(self, stubs: Sequence[StubProcess], spec: StubSpec) -> None:
        self.engine: str = spec.engine
        self.model = spec.model
        self.block = spec.block
        self.urls: Sequence[str] = [stub.url for stub in stubs]
        self._stubs = stubs

    async def forget(self) -> None:
        """Empty every cache."""
        for stub in self._stubs:
            await stub.reset_cache()

    async def counts(self) -> list[Count]:
        """What each has done."""
        stats = [await stub.stats() for stub in self._stubs]
        return [Count(prompt=one["prompt_tokens"], cached=one["cached_tokens"]) for one in stats]

    def taken(self) -> list[Call]:
        """None: its own counts are exact."""
        return []


@asynccontextmanager
async def stub_fleet(count: int, spec: StubSpec) -> AsyncIterator[StubFleet]:
    """So many stub nodes, each a process."""
    async with AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(start_stub(spec)) for _ in range(count)]
        yield StubFleet(stubs, spec)


def since(before: Sequence[Count], after: Sequence[Count]) -> list[Count]:
    """What was done between two readings."""
    return [
        Count(prompt=new.prompt - old.prompt, cached=new.cached - old.cached)
        for old, new in zip(before, after, strict=True)
    ]
