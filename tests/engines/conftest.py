"""Real engines for the tests in this folder: started when the first test wants them, ended with the last one.

Those of one engine are shared by the tests of a file. Nothing is skipped: where an engine is not installed, its
tests fail and say how to install it.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.engines.launch import Ports, SglangTraits
from bench.engines.lora import write_adapter
from bench.engines.node import EngineNode, Traits, running
from bench.engines.places import Places, places
from tests.ports import free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs engines, and time."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engines)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def engine_places() -> Places:
    """Where the engines and the model are."""
    return places(os.environ, Path.home())


@pytest.fixture(scope="session")
def adapters(engine_places: Places, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRA adapters of the small model, by the names that tests give them."""
    folder, model = tmp_path_factory.mktemp("lora"), engine_places.model_folder()
    return {name: write_adapter(folder / name, model, seed=seed) for name, seed in (("warm", 1), ("cold", 2))}


def ports_of(traits: Traits) -> Ports:
    """Ports that stay free while a node is away; side by side for ranks."""
    ranks = traits.ranks if isinstance(traits, SglangTraits) else 1
    return Ports(free_port(), free_port(side_by_side=ranks), free_port(side_by_side=ranks))


@contextlib.contextmanager
def started(*traits: Traits, engine_places: Places, folder: Path) -> Iterator[tuple[EngineNode, ...]]:
    """Engines of these traits that answer; what they print is in `folder`."""
    ports = tuple(ports_of(one) for one in traits)
    with asyncio.Runner() as runner:
        nodes = running(*traits, places=engine_places, folder=folder, ports=ports)
        yield runner.run(nodes.__aenter__())
        runner.run(nodes.__aexit__(None, None, None))
