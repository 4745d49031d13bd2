"""Numbers from rows: what a cut costs against a warm turn, and how much of what could be reused was."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.cut_cost.dialogue import Row

CACHED_PRICE = 0.1
"""What a cached token costs against an uncached one (`history.rules.tail.cached_price`)."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of keeping a history, over all its dialogues. Tokens are per turn, times in milliseconds."""

    name: str
    cuts: int
    warm_uncached: float
    cut_uncached: float
    cut_uncached_worst: int
    reused: float
    """Cached tokens by reusable ones: everything in a prompt before its new message."""
    tail: float
    """Tokens behind the new message, on average over all turns."""
    cost: float
    """Of a turn and its share of the background: uncached tokens, and cached ones at `CACHED_PRICE`."""
    warm_first_token_ms: float
    cut_first_token_ms: float
    background: Mapping[str, Mapping[str, int]]


def cuts(dialogue: Sequence[Row]) -> list[Row]:
    """The first turns after a cut: their prompts are shorter than what the node had just before, tails apart.

    A tail that is dropped shortens the next prompt by itself, so it counts in neither.
    """
    return [row for before, row in pairwise(dialogue) if _plain(row) < _plain(before) + before.completion]


def _plain(row: Row) -> int:
    return row.prompt - row.tail


def new_tokens(dialogues: Sequence[Sequence[Row]]) -> int:
    """Tokens that a new message adds to a prompt, by the engine's count, where the window only grew."""
    return round(
        statistics.median(
            _plain(row) - _plain(before) - before.completion
            for dialogue in dialogues
            for before, row in pairwise(dialogue)
            if row not in cuts(dialogue)
        )
    )


def summed(
    name: str,
    dialogues: Sequence[Sequence[Row]],
    background: Mapping[str, Mapping[str, int]],
    *,
    new: int,
) -> Arm:
    """One arm's numbers. A dialogue's first turn has nothing to reuse and is left out."""
    rows = [row for dialogue in dialogues for row in dialogue if row.turn > 0]
    cut = [row for dialogue in dialogues for row in cuts(dialogue)]
    warm = [row for row in rows if row not in cut]
    reusable = [(_plain(row) - new, min(row.cached, _plain(row) - new)) for row in rows]
    computed = sum(one["prompt_tokens"] - one["cached_tokens"] for one in background.values())
    read = sum(one["cached_tokens"] for one in background.values())
    computed += sum(row.prompt - row.cached for row in rows)
    read += sum(row.cached for row in rows)
    return Arm(
        name=name,
        cuts=len(cut),
        warm_uncached=statistics.median(row.uncached for row in warm),
        cut_uncached=statistics.median(row.uncached for row in cut),
        cut_uncached_worst=max(row.uncached for row in cut),
        reused=sum(cached for _, cached in reusable) / sum(whole for whole, _ in reusable),
        tail=statistics.fmean(row.tail for row in rows),
        cost=(computed + CACHED_PRICE * read) / len(rows),
        warm_first_token_ms=1000 * statistics.median(row.first_token_s for row in warm),
        cut_first_token_ms=1000 * statistics.median(row.first_token_s for row in cut),
        background=background,
    )


def table(arms: Sequence[Arm]) -> str:
    """All arms, side by side."""
    head = (
        "| history | cuts | uncached, warm | uncached, first after a cut (worst) | ratio | reused "
        "| tail | first token ms, warm | after a cut | background: computed / cached tokens "
        "| cost of a turn |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for arm in arms:
        computed = sum(one["prompt_tokens"] - one["cached_tokens"] for one in arm.background.values())
        cached = sum(one["cached_tokens"] for one in arm.background.values())
        cells = (
            *(arm.name, arm.cuts, f"{arm.warm_uncached:.0f}"),
            f"{arm.cut_uncached:.0f} ({arm.cut_uncached_worst})",
            f"{arm.cut_uncached / arm.warm_uncached:.2f}",
            *(f"{arm.reused:.1%}", f"{arm.tail:.0f}"),
            *(f"{arm.warm_first_token_ms:.0f}", f"{arm.cut_first_token_ms:.0f}"),
            *(f"{computed} / {cached}", f"{arm.cost:.0f}"),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
