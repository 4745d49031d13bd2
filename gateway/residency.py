"""What the routing knows of the nodes' caches, as dialogues ask for it."""

from collections.abc import Callable

from gateway.routing.router import Router
from history.conversation import Binding
from history.residency import Retained

_GONE = 0.17
"""Odds below which a conversation is cut as if its KV had gone. A cut that comes too early computes `min_turns`
turns anew, some five times what is computed too much where one does not come. Where events tell, the odds are
0 or 1. Else the horizon settles where one prefix in five is missed: 1.7 times its age has these odds."""


class NodeResidency:
    """By the ledger's own odds. `clock`: Unix seconds."""

    def __init__(self, router: Router, clock: Callable[[], float]) -> None:
        self._router = router
        self._clock = clock

    def is_gone(self, binding: Binding) -> bool:
        """Whether its node is away, or has most likely evicted it."""
        return self._router.odds(binding.node, binding.at, self._clock()) < _GONE

    def retained(self) -> Retained:
        """As of now."""
        seconds, is_full = self._router.horizon(self._clock())
        return Retained(seconds, is_full)
