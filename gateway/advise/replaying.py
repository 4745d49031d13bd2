"""The grid of windows, each replayed over all dialogues unless the state has it already."""

import asyncio
from collections.abc import Iterator, Sequence

import msgspec
import xxhash

from gateway.advise.state import State
from gateway.advise.watcher import Watcher
from history.advice import Closed, grid
from history.replay import Circumstances, Outcome, Replay, in_order
from history.sketch import Sketch
from history.window import WindowRule


def rules_to_try(closed: Sequence[Closed], current: WindowRule, bounds: tuple[int, int]) -> list[WindowRule]:
    """Everything, sliding windows of each size, and the stepped ones; the one in force among them."""
    lows = [one.min_turns for one in closed]
    stepped = grid(lows, bounds, also=[current.max_turns, *(one.max_turns for one in closed)])
    sliding = [WindowRule(policy="last_n", min_turns=low, max_turns=low) for low in lows]
    tried = [WindowRule(policy="all"), *sliding, *stepped]
    return tried if current in tried else [*tried, current]


async def replayed(
    sketches: Sequence[Sketch],
    rules: Sequence[WindowRule],
    given: Circumstances,
    state: State,
    watcher: Watcher,
) -> list[Outcome]:
    """What became of the traffic under each window, in their order."""
    order = in_order(sketches)
    watcher.begins(f"replaying {len(order)} turns under {len(rules)} windows", len(order) * len(rules))
    found = []
    for done, rule in enumerate(rules):
        name = _name(rule, given)
        if name not in state.outcomes:
            run = Replay(sketches, rule, given)
            for count in _summed(run.steps(order)):
                watcher.reached(done * len(order) + count, _said(rule))
                await asyncio.sleep(0)  # so that Ctrl-C is heard
            state.replayed(name, run.outcome())
        found.append(state.outcomes[name])
        watcher.reached((done + 1) * len(order), _said(rule))
    return found


def _summed(counts: Iterator[int]) -> Iterator[int]:
    so_far = 0
    for count in counts:
        so_far += count
        yield so_far


def _said(rule: WindowRule) -> str:
    return rule.policy if rule.policy == "all" else f"{rule.policy} {rule.min_turns} to {rule.max_turns}"


def _name(rule: WindowRule, given: Circumstances) -> str:
    return f"{xxhash.xxh3_64_intdigest(msgspec.msgpack.encode((rule, given))):016x}"
