"""What a routing policy is here, and what it may know.

A policy is one gateway replica's mind: it sees what it sent where itself, and the nodes' metrics as of the
last poll. Only an oracle looks at the nodes.
"""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from bench.fleet.node import Gauges, SimNode
from bench.fleet.prompt import Request


class Sight(msgspec.Struct, frozen=True):
    """What policies are given of a fleet."""

    nodes: Sequence[SimNode]
    """The truth: for oracles, and for the names of the others."""
    seed: int

    def seen(self, node: int, now: float) -> Gauges:
        """A node's metrics as of the last poll."""
        return self.nodes[node].seen(now)


class Policy(Protocol):
    """Chooses nodes. `lost` and `back` tell of a node's health as a gateway learns of it."""

    def choose(self, request: Request, now: float, /) -> int:
        """The node for a request: one that is up as far as is known, and did not fail this request."""
        ...

    def answered(self, request: Request, now: float, /) -> None:
        """Its first token came."""
        ...

    def ended(self, request: Request, now: float, /) -> None:
        """It is complete, or its node died (`is_broken`, or `node in excluded`)."""
        ...

    def lost(self, node: int, /) -> None:
        """A node is away."""
        ...

    def back(self, node: int, /) -> None:
        """A node is there again, with an empty cache."""
        ...


Make = Callable[[Sight, int], Sequence[Policy]]
"""The minds of so many replicas, with what they share."""


class Own:
    """What every replica counts itself: its requests under way on each node, and which nodes are up."""

    def __init__(self, sight: Sight, replica: int) -> None:
        self.sight = sight
        self.count = len(sight.nodes)
        self.block = sight.nodes[0].card.block
        self.dice = random.Random(sight.seed * 31 + replica)
        self.running = [0] * self.count
        self.up = [True] * self.count
        self.all = list(range(self.count))

    def able(self, request: Request) -> list[int]:
        """Nodes that may get a request."""
        if all(self.up) and not request.excluded:
            return self.all
        able = [node for node in self.all if self.up[node] and node not in request.excluded]
        return able or [node for node in self.all if node not in request.excluded] or self.all

    def send(self, node: int) -> int:
        """Count a request as under way on a node."""
        self.running[node] += 1
        return node

    def ended(self, request: Request) -> None:
        """It is under way no more."""
        self.running[request.node] -= 1


Pick = Callable[[Request, list[int], float], int]
"""The node for a request among those that may get it, at a time."""


def _nothing(_: int) -> None:
    """A policy that remembers nothing of a node has nothing to forget."""


class Replica:
    """A gateway that decides when a request comes, and learns nothing from how it went."""

    def __init__(self, own: Own, pick: Pick, forget: Callable[[int], None] = _nothing) -> None:
        self._own = own
        self._pick = pick
        self._forget = forget

    def choose(self, request: Request, now: float) -> int:
        """As its policy says."""
        return self._own.send(self._pick(request, self._own.able(request), now))

    def answered(self, _: Request, __: float) -> None:
        """Nothing to learn from that."""

    def ended(self, request: Request, _: float) -> None:
        """It is under way no more."""
        self._own.ended(request)

    def lost(self, node: int) -> None:
        """A node is away."""
        self._own.up[node] = False
        self._forget(node)

    def back(self, node: int) -> None:
        """A node is there again."""
        self._own.up[node] = True
