"""What a return costs when the node has forgotten: the first turn after a night, with and without `warm`.

The dialogues take turns as usual, then every node is restarted: its cache is empty. An app that opens
the chat calls `warm`; the user speaks when that is done, or at once where nobody called.
"""

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from bench.cut_cost.dialogue import Dialogue, Row
from bench.cut_cost.stage import MODEL, Stage, stage

NODES = 2
TURNS = 6
"""Before the night; no cut falls into them, nor into the turn behind it."""


@dataclass(frozen=True, slots=True)
class Return:
    """One way of coming back, over all dialogues."""

    name: str
    warm_uncached: float
    """Of the turns before, but each dialogue's first."""
    uncached: float
    uncached_worst: int
    warm_first_token_ms: float
    first_token_ms: float
    computed: int
    """Tokens that the calls of `warm` computed, in all."""


def come_back(options: Sequence[str], *, warms: bool, dialogues: int, pause_s: float) -> Return:
    """One arm from its beginning."""
    users = [Dialogue(number, rewrites=False) for number in range(dialogues)]
    with stage(NODES, options) as on:

        def talk(members: Sequence[Dialogue]) -> None:
            with httpx.Client(timeout=120) as client:
                for _ in range(TURNS):
                    for user in members:
                        user.take_turn(client, on)
                        time.sleep(pause_s)

        def back(members: Sequence[Dialogue]) -> int:
            with httpx.Client(timeout=120) as client:
                return sum(_opened(client, on, user, warms=warms) for user in members)

        groups = [users[at::NODES] for at in range(NODES)]
        with ThreadPoolExecutor(NODES) as threads:
            list(threads.map(talk, groups))
            on.forget()
            computed = sum(threads.map(back, groups))
    return _summed("with `warm`" if warms else "without", [user.rows for user in users], computed)


def _opened(client: httpx.Client, on: Stage, user: Dialogue, *, warms: bool) -> int:
    computed = 0
    if warms:
        answer = client.post(f"{on.url}/v1/conversations/{user.name}/warm", json={"model": MODEL})
        answer.raise_for_status()
        said = answer.json()
        computed = said["prompt_tokens"] - said["cached_tokens"]
    user.take_turn(client, on)
    return computed


def _summed(name: str, dialogues: Sequence[Sequence[Row]], computed: int) -> Return:
    warm = [row for rows in dialogues for row in rows[1:TURNS]]
    first = [rows[TURNS] for rows in dialogues]
    return Return(
        name=name,
        warm_uncached=statistics.median(row.uncached for row in warm),
        uncached=statistics.median(row.uncached for row in first),
        uncached_worst=max(row.uncached for row in first),
        warm_first_token_ms=1000 * statistics.median(row.first_token_s for row in warm),
        first_token_ms=1000 * statistics.median(row.first_token_s for row in first),
        computed=computed,
    )


def table(returns: Sequence[Return]) -> str:
    """Both, side by side."""
    head = (
        "| first turn after the nodes forgot | uncached, warm turn | uncached, that turn (worst) | ratio "
        "| first token ms, warm | that turn | computed by `warm` |"
    )
    lines = [head, "|---|---|---|---|---|---|---|"]
    for one in returns:
        cells = (
            *(one.name, f"{one.warm_uncached:.0f}", f"{one.uncached:.0f} ({one.uncached_worst})"),
            *(f"{one.uncached / one.warm_uncached:.2f}", f"{one.warm_first_token_ms:.0f}"),
            *(f"{one.first_token_ms:.0f}", one.computed),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
