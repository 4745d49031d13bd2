"""Real engines for the tests in this folder, each test for vLLM and for SGLang where it says nothing else.

Nothing is skipped: where an engine is not installed, its tests fail and say how to install it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.engines.launch import SglangTraits, VllmTraits
from bench.engines.lora import write_adapter
from bench.engines.node import EngineNode
from bench.engines.places import ENGINES, Places, places
from tests.engines.lender import Lender
from training.llamafactory import INSTALL_COMMAND, LlamaFactory, default_folder

PAIRS = {
    "vllm": (VllmTraits(lora=True, is_dev=True),) * 2,
    "sglang": (SglangTraits(lora=True),) * 2,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs engines, and time."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engines)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def engine_places() -> Places:
    """Where the engines and the model are."""
    return places(os.environ, Path.home())


@pytest.fixture(scope="session")
def lender(engine_places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lender]:
    """Starts engines, and ends them."""
    one = Lender(engine_places, tmp_path_factory.mktemp("engines"))
    yield one
    one.end()
    one.runner.close()


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Which engine a test is about; all tests of one run before those of the next."""
    return str(request.param)


@pytest.fixture
def pair(engine: str, lender: Lender) -> tuple[EngineNode, ...]:
    """Two nodes of it."""
    return lender.lend(*PAIRS[engine])


@pytest.fixture(scope="session")
def llamafactory() -> Path:
    """The folder of LLaMA-Factory's environment."""
    folder = default_folder(os.environ, Path.home())
    if LlamaFactory(folder, installed_in=folder).cli() is None:
        pytest.fail(f"LLaMA-Factory is not installed: `{INSTALL_COMMAND}`")
    return folder


@pytest.fixture(scope="session")
def adapters(engine_places: Places, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRA adapters of the small model, by name."""
    folder, model = tmp_path_factory.mktemp("lora"), engine_places.model_folder()
    return {name: write_adapter(folder / name, model, seed=seed) for name, seed in (("warm", 1), ("cold", 2))}
