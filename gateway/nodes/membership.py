"""Keeps the roster as everybody wants it who has a say, on every replica, over restarts.

The store is asked for its version once a second, and for the rest only when that has changed: what an
administrator does on one replica holds on all of them within two seconds. While the store is away, or cannot
be read, everything stays as it is.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import structlog

from gateway.nodes.errors import NodeExists, NodeNotFound, NodeNotOurs, RosterStoreUnavailable
from gateway.nodes.members import ADDED, Found, Member, members
from gateway.nodes.ports import Drain, RosterStore, RosterTable
from gateway.nodes.roster import Roster
from gateway.nodes.spec_check import check_reachable
from gateway.nodes.watch import NodeWatch
from gateway.routing.node import Node, NodeSpec

T = TypeVar("T")

POLL_EVERY_S = 1.0
ANSWER_WITHIN_S = 0.9
_NONSENSE = (ValueError, TypeError, AttributeError)
"""What reading an answer ends with that no Redis gives."""

log = structlog.get_logger()


class Finder(Protocol):
    """A source of nodes that changes by itself."""

    every_s: float
    """How often it is to be asked."""

    @property
    def found(self) -> Found:
        """What it knows now."""

    async def look(self) -> None:
        """Ask once. Never raises for what the other side does."""


class Membership:
    """Call `load` once, then keep `run` in the process's task group."""

    def __init__(
        self,
        roster: Roster,
        store: RosterStore,
        configured: Iterable[NodeSpec],
        finders: Sequence[Finder] = (),
        *,
        poll_every_s: float = POLL_EVERY_S,
    ) -> None:
        self.roster = roster
        self.outage: str | None = None
        """What the last poll of the store failed with; None while it answers."""
        self._store = store
        self._configured = tuple(configured)
        self._finders = finders
        self._poll_every_s = poll_every_s
        self._table = RosterTable()
        self._version: str | None = None
        self._wanted: Mapping[str, Member] = {}
        self._drained: dict[str, Drain] = {}
        self._leaving: set[str] = set()

    def member(self, name: str) -> Member | None:
        """What is wanted of a node; None: it is on its way out."""
        return self._wanted.get(name)

    async def load(self) -> None:
        """Ask every source once, and make the roster so. A store that is away leaves what was known."""
        await asyncio.gather(self._refresh(), *(finder.look() for finder in self._finders))
        self._apply()

    async def run(self) -> None:
        """Follow every source until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for finder in self._finders:
                tasks.create_task(keep_looking(finder))
            while True:
                await asyncio.sleep(self._poll_every_s)
                await self._refresh()
                self._apply()

    async def add(self, spec: NodeSpec) -> Node:
        """Take a node in, here and on every replica, for good.

        Raises `BadRequest` for an address that is none to send requests to, `NodeExists`, `TooManyNodes`,
        `RosterStoreUnavailable`.
        """
        if spec.name in self._wanted:
            raise NodeExists(spec.name)
        await check_reachable(spec)
        await _answered(self._store.add(spec))
        await self._reread()
        if (node := self.roster.by_id.get(spec.name)) is None:
            raise RosterStoreUnavailable("the node was stored, but the store could not be read back")
        return node

    def watch(self, name: str) -> NodeWatch:
        """What keeps that node. Raises `NodeNotFound`."""
        return self.roster.watch(self._node(name).id)

    async def drain(self, name: str, *, within_s: float | None = None) -> Node:
        """Keep a node from new requests. Raises `NodeNotFound`, `RosterStoreUnavailable`."""
        node = self._node(name)
        await _answered(self._store.drain(name, Drain(within_s)))
        await self._reread()
        return node

    async def undrain(self, name: str) -> Node:
        """Let a node have requests again. Raises as `drain` does."""
        node = self._node(name)
        await _answered(self._store.undrain(name))
        await self._reread()
        return node

    async def remove(self, name: str) -> None:
        """Drain a node and forget it. Raises as `drain` does, and `NodeNotOurs` if it was not added here."""
        self._node(name)
        if (origin := self._wanted[name].origin) != ADDED:
            raise NodeNotOurs(name, origin)
        await _answered(self._store.forget(name))
        await self._reread()

    def _node(self, name: str) -> Node:
        if name not in self._wanted or name not in self.roster.by_id:
            raise NodeNotFound(name)
        return self.roster.by_id[name]

    async def _reread(self) -> None:
        self._version = None
        await self._refresh()
        self._apply()

    async def _refresh(self) -> None:
        try:
            if await _answered(self._store.version()) != self._version:
                self._table = await _answered(self._store.table())
                self._version = self._table.version
                for name in sorted(self._table.unreadable):
                    log.warning("a newer version wrote this node; it is left as it is", node=name)
        except RosterStoreUnavailable as error:
            if self.outage is None:
                # With its traceback where the mistake might be ours.
                is_nonsense = isinstance(error.__cause__, _NONSENSE)
                log.warning("store of nodes is away", problem=str(error), exc_info=is_nonsense)
            self.outage = str(error)
        else:
            if self.outage is not None:
                log.info("store of nodes is back")
            self.outage = None

    def _apply(self) -> None:
        """Make the roster what is wanted now. A node whose settings changed leaves first, then comes back."""
        self._wanted = members(self._configured, self._table, (finder.found for finder in self._finders))
        self._leaving &= self.roster.by_id.keys()
        for node in self.roster.nodes:
            member = self._wanted.get(node.id)
            is_wanted = node.id in self._table.unreadable if member is None else member.spec == node.spec
            if not is_wanted and node.id not in self._leaving:
                self._leaving.add(node.id)
                self._drained.pop(node.id, None)
                self.roster.remove(node.id)
            elif is_wanted and node.id in self._leaving:
                self._leaving.discard(node.id)
                self.roster.undrain(node.id)
        for name, member in self._wanted.items():
            if name not in self.roster.by_id:
                self.roster.add(member.spec)
            if name not in self._leaving and name not in self._table.unreadable:
                self._set_drain(name, member.drain)

    def _set_drain(self, name: str, drain: Drain | None) -> None:
        if drain == self._drained.get(name):
            return
        if drain is None:
            del self._drained[name]
            self.roster.undrain(name)
        else:
            self._drained[name] = drain
            self.roster.drain(name, within_s=drain.within_s)


async def keep_looking(finder: Finder) -> None:
    """Ask it again and again, until cancelled."""
    while True:
        await asyncio.sleep(finder.every_s)
        await finder.look()


async def _answered(asked: Awaitable[T]) -> T:
    """What the store answers in time. Raises `RosterStoreUnavailable` for all that may be wrong out there."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await asked
    except TimeoutError:
        raise RosterStoreUnavailable(
            f"the store of nodes did not answer within {ANSWER_WITHIN_S} s"
        ) from None
    except _NONSENSE as error:
        problem = f"the answer of the store of nodes makes no sense: {type(error).__name__}"
        raise RosterStoreUnavailable(problem) from error
