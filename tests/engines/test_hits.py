"""Two real nodes: what dialogues find in their caches, by the engines' own counters and token ids."""

from bench.engines.node import EngineNode
from tests.engines.dialogues import bench

BLOCK = {"vllm": 32, "sglang": 16}
NAMES = ("Luna", "Nova", "Vega", "Lyra", "Mira", "Iris")
TURNS = 16
WINDOW = (
    *("--set", "history.rules.window.min_turns=4"),
    *("--set", "history.rules.window.max_turns=8"),
)
"""Cuts five turns when a ninth would be shown: in 16 turns, twice."""
ALONE = (
    *("--set", "history.rules.compaction.enabled=false", "--set", "history.rules.recall.enabled=false"),
    *("--set", "history.upkeep.prewarm=false"),
)


async def test_the_window_alone_is_served_from_cache(engine: str, pair: tuple[EngineNode, ...]) -> None:
    """What could be reused is, and the engines' counters agree with what each answer said."""
    async with bench(pair, (*WINDOW, *ALONE)) as one:
        measured = await one.measure(NAMES, TURNS, block=BLOCK[engine])
    print(measured.table(f"{engine}, two nodes, stepped window 4 to 8, nothing else"))

    cuts = {name: [t.number for t in measured.turns if t.dialogue == name and t.is_cut] for name in NAMES}
    assert {name: [9, 14] for name in NAMES} == cuts
    assert sum(turn.entry.call.cached for turn in measured.turns) == measured.counted.cached
    assert sum(len(turn.entry.call.prompt) for turn in measured.turns) == measured.counted.prompt
    assert measured.share >= 0.95
    assert measured.kept_promises >= 0.98


async def test_with_all_that_is_on_by_default(engine: str, pair: tuple[EngineNode, ...]) -> None:
    """Summaries, recall and pre-warming, too, make requests: users' turns find as much."""
    names = tuple(f"{name} the Second" for name in NAMES)
    async with bench(pair, WINDOW) as one:
        measured = await one.measure(names, TURNS, block=BLOCK[engine])
    print(measured.table(f"{engine}, two nodes, stepped window 4 to 8, everything as by default"))

    assert len(measured.entries) > len(measured.turns)
    assert measured.share >= 0.95
    assert measured.kept_promises >= 0.98
