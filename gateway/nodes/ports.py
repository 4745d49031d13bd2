"""The door to where added nodes and drains are kept: they outlast a restart and hold on every replica.

Every method raises `RosterStoreUnavailable` when the store does not answer.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from gateway.routing.node import NodeSpec

MAX_NODES = 1_000
"""How many a store takes: each replica polls them all."""


class Drain(msgspec.Struct, frozen=True):
    """A node shall get no more requests."""

    within_s: float | None = None
    """What still runs there after this time is broken off; None: nothing is."""


class RosterTable(msgspec.Struct, frozen=True):
    """Everything as of one moment.

    `version` differs after every change and says nothing else. `unreadable` are ids that a newer program
    wrote: they stay as they are here.
    """

    version: str = ""
    specs: Mapping[str, NodeSpec] = {}
    drains: Mapping[str, Drain] = {}
    unreadable: frozenset[str] = frozenset()


class RosterStore(Protocol):
    """Where what administrators say of nodes lives. Nodes go by their names."""

    async def add(self, spec: NodeSpec) -> None:
        """Keep a node. Raises `NodeExists`, and `TooManyNodes` at MAX_NODES."""

    async def forget(self, name: str) -> None:
        """Keep neither the node nor its drain any longer. Raises `NodeNotFound` if it was not added."""

    async def drain(self, name: str, drain: Drain) -> None:
        """Note a drain, of any node. Raises `TooManyNodes` at MAX_NODES drains."""

    async def undrain(self, name: str) -> None:
        """Forget a drain; without one nothing changes."""

    async def table(self) -> RosterTable:
        """Everything, and the version that this is, read in one step."""

    async def version(self) -> str:
        """The version of what `table` would return now: one small read."""
