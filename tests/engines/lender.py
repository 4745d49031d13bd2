"""Lends engines to tests, one set at a time: they are slow to start and take gigabytes.

Whoever asks for the same set gets the one that runs, those that were killed started again on their ports;
whoever asks for another one gets that after the first has ended.
"""

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.engines.launch import Ports, SglangTraits
from bench.engines.node import EngineNode, Traits, running
from bench.engines.places import Places
from tests.ports import free_port


@dataclass(slots=True)
class Lender:
    """What runs now, and where everything is."""

    places: Places
    folder: Path
    """Of the logs."""
    nodes: tuple[EngineNode, ...] = ()
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def lend(self, *traits: Traits) -> tuple[EngineNode, ...]:
        """Engines of these traits that answer."""
        if tuple(node.traits for node in self.nodes) != traits:
            self.end()
            self.runner.run(self._start(traits))
        for node in self.nodes:
            assert node.process is not None
            if node.process.poll() is not None:
                node.start()
                self.runner.run(node.ready())
        return self.nodes

    def end(self) -> None:
        """End what runs."""
        self.nodes = ()
        self.runner.run(self.stack.aclose())

    async def _start(self, traits: tuple[Traits, ...]) -> None:
        folder = self.folder / f"set{next(self.numbers)}"
        folder.mkdir()
        ports = tuple(map(ports_of, traits))
        context = running(*traits, places=self.places, folder=folder, ports=ports)
        self.nodes = await self.stack.enter_async_context(context)


def ports_of(traits: Traits) -> Ports:
    """Ports that stay free while an engine is away; side by side for ranks."""
    ranks = traits.ranks if isinstance(traits, SglangTraits) else 1
    return Ports(free_port(), free_port(side_by_side=ranks), free_port(side_by_side=ranks))
