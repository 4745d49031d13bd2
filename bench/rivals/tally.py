"""What the engines said of each turn, and the figures that follow. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec


class Turn(msgspec.Struct, frozen=True):
    """One answered request, by the engine's own count of tokens."""

    prompt: int
    completion: int
    cached: int
    first_s: float
    """From the request to the first piece of the answer."""
    expected: int | None = None
    """Cached tokens that the gateway foretold."""
    route: str = ""
    """How it says that it chose the node."""


class Count(msgspec.Struct, frozen=True):
    """What one node has done by its own counters: every request, those of the background too."""

    prompt: int
    cached: int


class Figures(msgspec.Struct, frozen=True):
    """One arm's."""

    turns: int
    failed: int
    hit: float
    """Cached by all prompt tokens."""
    uncached: float
    """Prompt tokens computed per turn."""
    followups_reused: float
    """Of what a turn that is no cut could reuse, the share that it did."""
    reused: float
    """Cached by all that stood in front of the new message, turns after a cut and first turns included."""
    computed: float
    """Tokens computed per turn by the nodes' counters: with all that no user waited for."""
    ttft_p50_s: float
    ttft_p90_s: float
    load: float
    """Prompt tokens of the busiest node by the mean."""
    foretold: float | None
    """Share of turns, cuts apart, whose cached tokens were foretold to within a block."""
    foretold_at_cuts: float | None
    mean_prompt: float
    cuts: int
    routes: dict[str, int]
    """Turns by what the gateway says of their route."""
    by_token: float | None = None
    """Of the tokens that any earlier request had left behind, by the token ids themselves, the share that was
    found (`bench.engines.account`); None where they were not noted."""


def figures(
    dialogues: Sequence[Sequence[Turn]], nodes: Sequence[Count], *, block: int, failed: int
) -> Figures:
    """All of an arm in numbers."""
    turns = [turn for dialogue in dialogues for turn in dialogue]
    pairs = [pair for dialogue in dialogues for pair in pairwise(dialogue)]
    grown = [(before, turn) for before, turn in pairs if not is_cut(before, turn)]
    cut = [(before, turn) for before, turn in pairs if is_cut(before, turn)]
    first = sorted(turn.first_s for turn in turns)
    said = sum(turn.prompt - before.prompt - before.completion for before, turn in grown) / max(1, len(grown))
    loads = [node.prompt for node in nodes]
    prompt, cached = sum(turn.prompt for turn in turns), sum(turn.cached for turn in turns)
    return Figures(
        turns=len(turns),
        failed=failed,
        hit=cached / prompt,
        uncached=(prompt - cached) / len(turns),
        followups_reused=_share(
            (min(turn.cached, reusable(before, turn, block)), reusable(before, turn, block))
            for before, turn in grown
        ),
        reused=min(1.0, cached / max(1.0, prompt - said * len(turns))),
        computed=sum(node.prompt - node.cached for node in nodes) / len(turns),
        ttft_p50_s=first[len(first) // 2],
        ttft_p90_s=first[len(first) * 9 // 10],
        load=max(loads) * len(loads) / sum(loads),
        foretold=_foretold([turn for _, turn in grown], block),
        foretold_at_cuts=_foretold([turn for _, turn in cut], block),
        mean_prompt=prompt / len(turns),
        cuts=len(cut),
        routes=dict(Counter(turn.route for turn in turns if turn.route)),
    )


def is_cut(before: Turn, turn: Turn) -> bool:
    """Whether a prompt does not hold all of the one before: its beginning was cut."""
    return turn.prompt < before.prompt + before.completion


def reusable(before: Turn, turn: Turn, block: int) -> int:
    """Tokens in whole blocks that the turn before left behind; an engine computes the last one anew.

    The last token that was generated has no KV yet.
    """
    left = (before.prompt + before.completion - 1) // block * block
    return min(left, (turn.prompt - 1) // block * block)


def _foretold(turns: Sequence[Turn], block: int) -> float | None:
    told = [abs(turn.expected - turn.cached) <= block for turn in turns if turn.expected is not None]
    return sum(told) / len(told) if told else None


def _share(parts: Iterable[tuple[int, int]]) -> float:
    pairs = list(parts)
    return sum(part for part, _ in pairs) / max(1, sum(whole for _, whole in pairs))
