"""Adapters put on nodes and taken off, each node on its own, with bounded attempts."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

import msgspec
import structlog

from gateway.errors import GatewayError
from gateway.nodes.errors import AdapterRefused
from gateway.rollout.ports import Fleet
from gateway.rollout.record import Version

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0

log = structlog.get_logger()


class Attempts(msgspec.Struct, frozen=True):
    """What came of asking one node for one version."""

    made: int
    next_at: float
    """Steady seconds."""
    problem: str
    is_final: bool = False
    """The engine says that it cannot be."""


class Loading:
    """Asks nodes; what is under way, and what failed, is remembered as long as the node stays up."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float], *, attempts: int) -> None:
        self._fleet = fleet
        self._clock = clock
        self._attempts = attempts
        self._failed: dict[tuple[str, str], Attempts] = {}
        self._busy: set[str] = set()

    def load(self, node: str, version: Version, tasks: asyncio.TaskGroup) -> None:
        """Begin to load it, unless the node is at something, was asked too lately, or often enough."""
        self._begin(node, version.name, lambda: self._fleet.load(node, version), tasks)

    def unload(self, node: str, name: str, tasks: asyncio.TaskGroup) -> None:
        """Begin to unload it, likewise."""
        self._begin(node, name, lambda: self._fleet.unload(node, name), tasks)

    def failed(self, node: str, version: str) -> Attempts | None:
        """What went wrong with a version on a node."""
        return self._failed.get((node, version))

    def has_given_up(self, node: str, version: str) -> bool:
        """Whether that node is not asked for it any more."""
        failed = self._failed.get((node, version))
        return failed is not None and (failed.is_final or failed.made >= self._attempts)

    def problems(self, versions: Collection[str]) -> dict[str, str]:
        """By node, what is wrong with any of these versions there."""
        found: dict[str, str] = {}
        for (node, version), failed in self._failed.items():
            if version in versions:
                more = "" if self.has_given_up(node, version) else "; it is tried again"
                found[node] = f"{version}: {failed.problem} ({failed.made} attempts{more})"
        return found

    def forget(self, nodes: Collection[str]) -> None:
        """What failed on nodes that are not these: they are away, and may come back as others."""
        self._failed = {key: failed for key, failed in self._failed.items() if key[0] in nodes}

    def _begin(
        self, node: str, version: str, act: Callable[[], Awaitable[None]], tasks: asyncio.TaskGroup
    ) -> None:
        failed = self._failed.get((node, version))
        is_early = failed is not None and self._clock() < failed.next_at
        if node not in self._busy and not is_early and not self.has_given_up(node, version):
            self._busy.add(node)
            tasks.create_task(self._act(node, version, act))

    async def _act(self, node: str, version: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except GatewayError as fault:
            before = self._failed.get((node, version))
            made = (before.made if before else 0) + 1
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (made - 1))
            self._failed[node, version] = Attempts(
                made, self._clock() + pause_s, str(fault)[:1000], isinstance(fault, AdapterRefused)
            )
            log.warning("a version is not on its node", node=node, version=version, problem=str(fault))
        else:
            self._failed.pop((node, version), None)
            log.info("a version was loaded or unloaded", node=node, version=version)
        finally:
            self._busy.discard(node)
