"""Two real vLLM nodes: what dialogues find in their caches, by the engines' own counters and token ids."""

from collections.abc import Iterator

import pytest

from bench.engines.launch import VllmTraits
from bench.engines.node import EngineNode
from bench.engines.places import Places
from tests.engines.conftest import started
from tests.engines.dialogues import bench

BLOCK = 32
NAMES = ("Luna", "Nova", "Vega", "Lyra", "Mira", "Iris")
TURNS = 16
WINDOW = (
    *("--model", "smollm2", "--set", "history.rules.window.min_turns=4"),
    *("--set", "history.rules.window.max_turns=8"),
)
"""Cuts five turns when a ninth would be shown: in 16 turns, twice."""
ALONE = (
    *("--set", "history.rules.compaction.enabled=false", "--set", "history.rules.recall.enabled=false"),
    *("--set", "history.upkeep.prewarm=false"),
)


@pytest.fixture(scope="module")
def nodes(
    engine_places: Places, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[EngineNode, ...]]:
    """Two of them."""
    folder = tmp_path_factory.mktemp("vllm")
    with started(VllmTraits(), VllmTraits(), engine_places=engine_places, folder=folder) as found:
        yield found


async def test_the_window_alone_is_served_from_cache(nodes: tuple[EngineNode, ...]) -> None:
    """What could be reused is, and the engines' counters agree with what each answer said."""
    async with bench(nodes, (*WINDOW, *ALONE)) as one:
        measured = await one.measure(NAMES, TURNS, block=BLOCK)
    print(measured.table("vLLM, two nodes, stepped window 4 to 8, nothing else"))

    cuts = {name: [t.number for t in measured.turns if t.dialogue == name and t.is_cut] for name in NAMES}
    assert dict.fromkeys(NAMES, [9, 14]) == cuts
    assert sum(turn.entry.call.cached for turn in measured.turns) == measured.counted.cached
    assert sum(len(turn.entry.call.prompt) for turn in measured.turns) == measured.counted.prompt
    assert measured.share >= 0.95
    assert measured.kept_promises >= 0.98


async def test_with_everything_that_is_on_by_default(nodes: tuple[EngineNode, ...]) -> None:
    """Summaries, recall and pre-warming, too, make requests: users' turns find as much."""
    names = tuple(f"{name}2" for name in NAMES)
    async with bench(nodes, WINDOW) as one:
        measured = await one.measure(names, TURNS, block=BLOCK)
    print(measured.table("vLLM, two nodes, stepped window 4 to 8, everything as by default"))

    assert len(measured.entries) > len(measured.turns)
    assert measured.share >= 0.95
    assert measured.kept_promises >= 0.98
