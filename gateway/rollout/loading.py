"""Adapters put on nodes and taken off, each node on its own, with bounded attempts."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Literal

import msgspec
import structlog

from gateway.errors import GatewayError
from gateway.nodes.errors import AdapterRefused
from gateway.rollout.ports import Fleet
from gateway.rollout.record import Version

Deed = tuple[str, Literal["load", "unload"], str]
"""A node, what is done there, and with which version."""

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_PROBLEM_SHOWN = 1000

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
        self._failed: dict[Deed, Attempts] = {}
        self._busy: set[str] = set()

    def load(self, node: str, version: Version, tasks: asyncio.TaskGroup) -> None:
        """Begin to load it, unless the node is at something, was asked too lately, or often enough."""
        self._begin((node, "load", version.name), lambda: self._fleet.load(node, version), tasks)

    def unload(self, node: str, name: str, tasks: asyncio.TaskGroup) -> None:
        """Begin to unload it, likewise."""
        self._begin((node, "unload", name), lambda: self._fleet.unload(node, name), tasks)

    def failed(self, node: str, version: str) -> Attempts | None:
        """What went wrong when a version was loaded on a node."""
        return self._failed.get((node, "load", version))

    def has_given_up(self, node: str, version: str) -> bool:
        """Whether that node is not asked for it any more."""
        return self._has_given_up((node, "load", version))

    def problems(self, versions: Collection[str]) -> dict[str, str]:
        """By node, what is wrong with any of these versions there."""
        found: dict[str, str] = {}
        for deed, failed in self._failed.items():
            node, verb, version = deed
            if version in versions:
                more = "" if self._has_given_up(deed) else "; it is tried again"
                found[node] = f"{version} did not {verb}: {failed.problem} ({failed.made} attempts{more})"
        return found

    def forget(self, served: Mapping[str, Collection[str]]) -> None:
        """What failed on nodes that are not among these, and may come back as others; and what is done now.

        `served`: by node, what it serves.
        """
        self._failed = {
            (node, verb, version): failed
            for (node, verb, version), failed in self._failed.items()
            if node in served and (version in served[node]) == (verb == "unload")
        }

    def _has_given_up(self, deed: Deed) -> bool:
        failed = self._failed.get(deed)
        return failed is not None and (failed.is_final or failed.made >= self._attempts)

    def _begin(self, deed: Deed, act: Callable[[], Awaitable[None]], tasks: asyncio.TaskGroup) -> None:
        failed, node = self._failed.get(deed), deed[0]
        is_early = failed is not None and self._clock() < failed.next_at
        if node not in self._busy and not is_early and not self._has_given_up(deed):
            self._busy.add(node)
            tasks.create_task(self._act(deed, act))

    async def _act(self, deed: Deed, act: Callable[[], Awaitable[None]]) -> None:
        node, verb, version = deed
        try:
            await act()
        except Exception as fault:
            # A mistake of ours, too, costs this node a version, not everybody their answers.
            is_known = isinstance(fault, GatewayError)
            before = self._failed.get(deed)
            made = (before.made if before else 0) + 1
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (made - 1))
            problem = str(fault)[:_PROBLEM_SHOWN] if is_known else type(fault).__name__
            is_final = isinstance(fault, AdapterRefused)
            self._failed[deed] = Attempts(made, self._clock() + pause_s, problem, is_final)
            log.warning(
                "a version did not load or unload",
                node=node,
                version=version,
                verb=verb,
                problem=problem,
                exc_info=not is_known,
            )
        else:
            self._failed.pop(deed, None)
            log.info("a version did", node=node, version=version, verb=verb)
        finally:
            self._busy.discard(node)
