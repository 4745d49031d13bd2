"""What the routing knows of the nodes' caches, as dialogues ask for it."""

from gateway.clock import Clock
from gateway.routing.router import Router
from history.conversation import Binding
from history.residency import Retained

GONE = 0.4
"""Odds below which a conversation is cut as if its KV had gone. In the simulator (bench/fleet) 0.3 to 0.6
compute equally little, 0.1 a sixth more: a cut that comes too early costs, and one that does not come."""


class NodeResidency:
    """By the ledger's own odds."""

    def __init__(self, router: Router, clock: Clock) -> None:
        self._router = router
        self._clock = clock

    def is_gone(self, binding: Binding) -> bool:
        """Whether its node is away, or has most likely evicted it."""
        now = self._clock.now()
        return self._router.odds(binding.node, max(0.0, now.wall - binding.at), now.steady) < GONE

    def retained(self) -> Retained:
        """As of now."""
        seconds, is_full = self._router.horizon(self._clock.steady())
        return Retained(seconds, is_full)
