"""What this product's gateway knows of caches and windows between the turns of simulated dialogues.

`Unknowing`: KV is always there, windows stay as configured. `Learning` asks the router of the run's first
replica, as the gateway asks its own, or, as with KV events, looks at the caches themselves.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from bench.fleet.dialogue import Dialogue, Layout
from bench.fleet.node import SimNode
from bench.fleet.ours import Ours
from bench.fleet.policy import Policy
from gateway.residency import GONE
from history.growth import Growth, Sizes
from history.residency import Retained
from history.rules import DialogueRules
from history.tail import TailRule
from history.window import WindowSetting


class Keeper(Protocol):
    """What happens to a dialogue's window between its turns."""

    def before(self, dialogue: Dialogue, now: float) -> None:
        """A message came."""

    def after(self, dialogue: Dialogue, *, has_cut: bool) -> None:
        """It was answered."""


class Unknowing:
    """Knows nothing."""

    def before(self, dialogue: Dialogue, now: float) -> None:
        """Cut nothing."""

    def after(self, dialogue: Dialogue, *, has_cut: bool) -> None:
        """Learn nothing."""


MakeKeeper = Callable[[Sequence[SimNode], Sequence[Policy]], Keeper]


class Learning(msgspec.Struct):
    """Cuts at once what has gone and, where windows are found, finds them."""

    ours: Ours
    nodes: Sequence[SimNode]
    growth: Growth
    sees: bool
    """Whether it knows the caches by events."""
    layout: Layout

    def before(self, dialogue: Dialogue, now: float) -> None:
        """A message came."""
        bound = self.ours.bound(dialogue.id)
        if bound is None:
            return
        self.growth.paused(now - bound.at)
        if self.growth.is_due():
            self.growth.find(Retained(*self.ours.router.horizon(now)))
        gone = (
            self._is_gone(dialogue)
            if self.sees
            else self.ours.router.odds(bound.node, now - bound.at, now) < GONE
        )
        if gone and dialogue.cut_for_free():
            dialogue.window = self.growth.newest()

    def after(self, dialogue: Dialogue, *, has_cut: bool) -> None:
        """It was answered."""
        layout = self.layout
        self.growth.took(
            Sizes(
                prompt=dialogue.tokens,
                turn=dialogue.mean_turn,
                answer=0.8 * dialogue.mean_turn,
                memory=layout.memory_tokens,
                persona=layout.persona_tokens,
                shown=dialogue.shown,
            )
        )
        if has_cut:
            dialogue.window = self.growth.newest()

    def _is_gone(self, dialogue: Dialogue) -> bool:
        """Whether no node has half of the prefix."""
        prefix = dialogue.prefix()
        half = prefix[0][1] + prefix[1][1] // 2
        return not any(node.cache.match(prefix) >= half for node in self.nodes)


def knows_nothing(nodes: Sequence[SimNode], policies: Sequence[Policy]) -> Keeper:
    """Whatever the nodes."""
    del nodes, policies
    return Unknowing()


def learning(layout: Layout, *, is_auto: bool, sees: bool = False) -> MakeKeeper:
    """For this product's replicas; other contenders have none."""
    low, high = layout.window.min_turns, layout.window.max_turns
    setting = WindowSetting(min_turns=low, max_turns="auto" if is_auto else high)
    rules = DialogueRules(window=setting, compaction=layout.compaction, tail=TailRule())

    def make(nodes: Sequence[SimNode], policies: Sequence[Policy]) -> Keeper:
        first = policies[0]
        if not isinstance(first, Ours):
            return Unknowing()
        return Learning(first, nodes, Growth(rules), sees, layout)

    return make
