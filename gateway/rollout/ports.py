"""The doors of rollouts: where their records are kept, and the nodes that they are about."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from gateway.rollout.precheck import Host
from gateway.rollout.record import Rollout, Version

MAX_ALIASES = 200
"""How many a store takes: each replica reads them all."""
PROBLEMS_KEPT = 64

Counts = Mapping[str, Mapping[str, int]]
"""By version, then by counter (`tally`)."""


class RolloutTable(msgspec.Struct, frozen=True):
    """Every alias as of one moment. `version` differs after every change and says nothing else."""

    version: str = ""
    records: Mapping[str, Rollout] = {}
    unreadable: frozenset[str] = frozenset()
    """Aliases that a newer program wrote: they stay as they are here."""


class RolloutStore(Protocol):
    """Where rollouts live, for all replicas. Every method raises `RolloutStoreUnavailable` if it is away."""

    async def version(self) -> str:
        """The version of what `table` would return now: one small read."""

    async def table(self) -> RolloutTable:
        """Everything, read in one step."""

    async def put(self, record: Rollout) -> bool:
        """Keep a record whose `revision` is one more than the one it was made of, 1 for a new alias.

        False, and nothing is changed, if another one was kept meanwhile. Raises `RolloutRefused` for a new
        alias at MAX_ALIASES.
        """

    async def count(self, alias: str, trial: int, counts: Counts) -> None:
        """Add to the counters of versions during a trial."""

    async def counts(self, alias: str, trial: int) -> Counts:
        """All counters of a trial."""

    async def prune(self, alias: str, before: int) -> None:
        """Forget the counters of trials before this one."""

    async def complain(self, alias: str, problems: Mapping[str, str]) -> None:
        """Keep what is wrong on nodes, by node, in place of what was kept; at most PROBLEMS_KEPT."""

    async def problems(self, alias: str) -> Mapping[str, str]:
        """What was kept last."""

    async def lead(self, owner: str, *, for_ms: int) -> bool:
        """Whether this one acts on nodes for so long from now: nobody else does, or it did already."""


class NodeView(msgspec.Struct, frozen=True):
    """A node as rollouts see it."""

    name: str
    is_healthy: bool
    is_draining: bool
    models: frozenset[str]
    """What it serves, adapters included."""
    adapters: Mapping[str, str]
    """Those of them that are adapters, and their models."""
    running: int
    """Requests under way there, as far as anybody tells."""
    is_fixed: bool
    """The configuration names its models, so that it cannot come back with another one."""
    engine: str
    host: Host


class Fleet(Protocol):
    """The nodes. What is asked of one raises a `GatewayError` with the reason where it cannot be done."""

    def nodes(self) -> Sequence[NodeView]:
        """All of them, as they are now."""

    async def load(self, node: str, version: Version) -> None:
        """Load an adapter there."""

    async def unload(self, node: str, name: str) -> None:
        """Unload it."""

    async def say(self, node: str, model: str, prompt: str, *, max_tokens: int) -> str:
        """What the node answers to a prompt; raises a `GatewayError` for anything but a 200."""

    async def drain(self, node: str) -> None:
        """Keep it from new requests, on every replica."""

    async def undrain(self, node: str) -> None:
        """Let it have requests again."""
