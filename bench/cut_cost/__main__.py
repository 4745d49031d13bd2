"""`python -m bench.cut_cost`: the same dialogues in several ways, and tables of what cuts and returns cost.

Two real CPU nodes and a window of 4 to 8 turns, so that sixteen turns hold two cuts. The dialogues take
turns, with a pause after each: people think before they answer, and the background works meanwhile. Then the
same dialogues once more, broken off by a night in which the nodes forget everything (`opening`).
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from rich.progress import Progress

from bench.cut_cost import opening
from bench.cut_cost.dialogue import HIGH, LOW, Dialogue, Row
from bench.cut_cost.report import Arm, new_tokens, summed, table
from bench.cut_cost.stage import background, stage

NODES = 2
TURNS = 16
_WINDOW = (
    *("--set", f"history.rules.window.min_turns={LOW}"),
    *("--set", f"history.rules.window.max_turns={HIGH}"),
    *("--set", "history.rules.compaction={lead_turns: 2, max_tokens: 48}"),
)
_NO_RECALL = ("--set", "history.rules.recall.enabled=false")
ARMS: Mapping[str, tuple[str, ...]] = {
    "stepped, pre-warm": (*_WINDOW, *_NO_RECALL),
    "stepped, no pre-warm": (*_WINDOW, *_NO_RECALL, "--set", "history.upkeep.prewarm=false"),
    "stepped, pre-warm, recall": _WINDOW,
    "summary rewritten every turn": (),
}
FIRST = next(iter(ARMS))
RETURNS = "returns"


def play(
    name: str, *, dialogues: int, turns: int, pause_s: float
) -> tuple[list[list[Row]], dict[str, dict[str, int]]]:
    """One arm from its beginning; each dialogue's rows, and what the background did."""
    users = [Dialogue(number, rewrites="rewritten" in name) for number in range(dialogues)]
    with stage(NODES, ARMS[name]) as on, Progress(transient=True) as progress:
        task = progress.add_task(name, total=dialogues * turns)

        def group(members: Sequence[Dialogue]) -> None:
            with httpx.Client(timeout=120) as client:
                for _ in range(turns):
                    for user in members:
                        user.take_turn(client, on)
                        progress.advance(task)
                        time.sleep(pause_s)

        with ThreadPoolExecutor(NODES) as threads:
            list(threads.map(group, [users[at::NODES] for at in range(NODES)]))
        return [user.rows for user in users], background(on)


def compare(names: Sequence[str], *, dialogues: int, turns: int = TURNS, pause_s: float = 0.3) -> list[Arm]:
    """These arms, one after the other."""
    played = {name: play(name, dialogues=dialogues, turns=turns, pause_s=pause_s) for name in names}
    new = new_tokens(next(iter(played.values()))[0])
    return [summed(name, rows, behind, new=new) for name, (rows, behind) in played.items()]


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.cut_cost", description=__doc__)
    parser.add_argument("--dialogues", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds a user thinks (default: 0.3)")
    parser.add_argument("--only", choices=(*ARMS, RETURNS), help="one arm, or the returns, instead of all")
    options = parser.parse_args()
    with_pause = {"dialogues": options.dialogues, "pause_s": options.pause}
    if options.only != RETURNS:
        names = [options.only] if options.only else list(ARMS)
        sys.stdout.write(table(compare(names, **with_pause)) + "\n")
    if options.only in (None, RETURNS):
        found = [opening.come_back(ARMS[FIRST], warms=warms, **with_pause) for warms in (True, False)]
        sys.stdout.write(f"\n{opening.table(found)}\n")


if __name__ == "__main__":
    main()
