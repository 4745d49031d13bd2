"""The nodes of this replica: who they are, who may get requests, who comes and who goes.

A node is healthy once it answered its health path and told its models; it is away after two failed probes
in a row, or when its breaker opens (`routing.breaker`). A new one gets no request before it is healthy. One
that drains gets none any more, and what runs on it ends; one that is removed drains first.

A node may answer anything at all, and none of it may end the process (`asking`). A node that is away is
logged once for each thing that is wrong with it, not at every poll.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import structlog
import zmq.asyncio

from gateway.errors import NodeFault
from gateway.nodes.asking import advice
from gateway.nodes.connection import NodePool, Patience
from gateway.nodes.engine_run import UNTOLD, EngineRun
from gateway.nodes.model_list import listed
from gateway.nodes.roster_rules import RosterRules
from gateway.nodes.watch import NodeWatch
from gateway.routing import breaker
from gateway.routing.node import Node, NodeSpec

_AWAY_AFTER = 2
_TOLD_AT_MOST = 4
"""Different problems of a node that is away; some are in the node's own words, which may go on changing."""
_LOOK_S = 0.1
_GONE = 1024
_UNWINDS_WITHIN_S = 5.0
"""After its connections were dropped, for requests to see that."""

log = structlog.get_logger()


class Roster:
    """Nodes by id, and the tasks that keep them. `run` has to be a task of the process's task group."""

    def __init__(
        self, specs: Iterable[NodeSpec], patience: Patience, rules: RosterRules | None = None
    ) -> None:
        self.rules = rules or RosterRules()
        self._patience = patience
        self._nodes: dict[str, Node] = {}
        self.by_id: Mapping[str, Node] = MappingProxyType(self._nodes)
        """All of them, healthy or not; a view that changes as they come and go."""
        self._watches: dict[str, NodeWatch] = {}
        self._told: dict[str, set[str]] = {}
        self._gone: OrderedDict[str, tuple[NodeSpec, EngineRun]] = OrderedDict()
        """The latest that left: what was placed there is remembered, and they may come back."""
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._context: zmq.asyncio.Context | None = None
        self._every_s = 0.0
        self.on_lost: Callable[[str], None] = lambda _: None
        """Called with the id of a node that was healthy and is away, or drains."""
        self.on_removed: Callable[[str], None] = lambda _: None
        """Called with the id of a node that is gone: what is kept of it elsewhere can be forgotten."""
        self.on_probed: Callable[[Node], None] = lambda _: None
        """Called with a healthy node whenever it was polled: it may have room again."""
        for spec in specs:
            self.add(spec)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them, as of now."""
        return tuple(self._nodes.values())

    def pool(self, node: str) -> NodePool:
        """The connections to a node."""
        return self._watches[node].pool

    def watch(self, node: str) -> NodeWatch:
        """What is kept of a node beside its facts."""
        return self._watches[node]

    def models(self) -> Mapping[str, list[str]]:
        """Every model that a healthy node serves, with the ids of those nodes."""
        served: dict[str, list[str]] = {}
        for node in self._nodes.values():
            if node.is_healthy:
                for model in node.models:
                    served.setdefault(model, []).append(node.id)
        return served

    # who comes and goes

    def add(self, spec: NodeSpec) -> Node:
        """Take a node in; it gets requests once it is healthy. Raises ValueError if its id is taken."""
        if spec.name in self._nodes:
            raise ValueError(f"two nodes are called {spec.name!r}: give one of them an id")
        node = Node(spec=spec, id=spec.name, models=frozenset(spec.models))
        self._nodes[node.id] = node
        self._watches[node.id] = self._watch_of(node)
        self._told[node.id] = set()
        if self._tasks is not None:
            self._keeping[node.id] = self._tasks.create_task(self._keep(self._watches[node.id], met=False))
        return node

    def drain(self, name: str, *, within_s: float | None = None) -> None:
        """Send it no more requests; what runs may end, within so many seconds if that is bounded."""
        self._retire(self._nodes[name])
        if within_s is not None:
            self._see_off(name, within_s, is_final=False)

    def undrain(self, name: str) -> None:
        """Send it requests again."""
        self._nodes[name].is_draining = False
        if (leaving := self._leaving.pop(name, None)) is not None:
            leaving.cancel()

    def remove(self, name: str, *, within_s: float | None = None) -> None:
        """Drain it, and forget it once nothing runs on it; at the latest after `within_s` (`drain_s`)."""
        self._retire(self._nodes[name])
        self._see_off(name, self.rules.drain_s if within_s is None else within_s, is_final=True)

    # what became of requests and probes

    def failed(self, node: Node, problem: str, **hints: str) -> None:
        """A probe failed; after two in a row the node is away until one succeeds.

        A node that never was healthy is away from the first failure. `hints` go into the log.
        """
        node.failures += 1
        node.problem = problem
        if not node.is_healthy or node.failures >= _AWAY_AFTER:
            self._take_out(node, problem, **hints)

    def broke(self, node: Node, problem: str, *, since: int) -> None:
        """A request failed, sent when the breaker had opened `since` times; if it opens, the node is away."""
        node.breaker = breaker.failed(node.breaker, since=since, is_only=self._is_only(node))
        node.problem = problem
        if node.breaker.state == "open" and node.is_healthy:
            self._take_out(node, problem)

    def _is_only(self, node: Node) -> bool:
        """Whether it serves something that no other node does.

        Others that are away now count: after a failure of all of them, whoever waits for the first one that
        is tried again would go there, and leave the others cold when they come back a moment later.
        """
        others = [one.models for one in self._nodes.values() if one is not node and not one.is_draining]
        return not node.models <= frozenset().union(*others)

    def began(self, node: Node) -> None:
        """A request's answer began."""
        node.breaker = breaker.began(node.breaker)

    def answered(self, node: Node) -> None:
        """A request was answered whole: failures before it are in a row no more."""
        node.breaker = breaker.answered(node.breaker)
        if (watch := self._watches.get(node.id)) is not None:
            watch.has_answered = True

    # keeping

    async def run(self, *, every_s: float = 2.0) -> None:
        """Poll all nodes for ever, each at its own pace, and follow the events of those that have any."""
        with zmq.asyncio.Context() as context:
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._tasks, self._context, self._every_s = tasks, context, every_s
                    for name, watch in self._watches.items():
                        self._keeping[name] = tasks.create_task(self._keep(watch, met=True))
                    await asyncio.Event().wait()
            finally:
                self._tasks = self._context = None

    async def probe_all(self) -> None:
        """Poll every node once: so that the first request finds them known."""
        await asyncio.gather(*(self._look_at(watch) for watch in tuple(self._watches.values())))

    def close(self) -> None:
        """Drop the connections."""
        for watch in self._watches.values():
            watch.close()

    async def _keep(self, watch: NodeWatch, *, met: bool) -> None:
        assert self._context is not None
        async with asyncio.TaskGroup() as tasks:
            if not met:
                await self._look_at(watch)
            while True:
                watch.start(tasks, self._context)
                await asyncio.sleep(self._every_s)
                await self._look_at(watch)

    async def _look_at(self, watch: NodeWatch) -> None:
        node = watch.node
        try:
            await watch.look()
        except NodeFault as fault:
            self.failed(node, str(fault), tried=watch.tried, check=advice(fault, node.spec))
            watch.note()
            return
        node.failures = 0
        node.breaker = breaker.probed(node.breaker)
        is_new = not node.is_healthy
        if is_new:
            node.is_healthy, node.problem = True, ""
            self._told.get(node.id, set()).clear()
            log.info("node is healthy", node=node.id, models=listed(node.models))
        self.on_probed(node)
        await watch.know(is_new=is_new)

    def _take_out(self, node: Node, problem: str, **hints: str) -> None:
        if node.is_healthy:
            self.on_lost(node.id)
        node.is_healthy = False
        told = self._told.get(node.id, set())
        if problem not in told and len(told) < _TOLD_AT_MOST:
            told.add(problem)
            log.warning("node is away", node=node.id, problem=problem, **hints)

    def _watch_of(self, node: Node) -> NodeWatch:
        """Of a node that was here before, and may be the same run of the same engine: its polls tell."""
        spec, run = self._gone.pop(node.id, (None, UNTOLD))
        is_there_still = spec is not None and (spec.url, spec.rank) == (node.spec.url, node.spec.rank)
        watch = NodeWatch(
            node, self._patience, may_try=self.rules.trial, run=run if is_there_still else UNTOLD
        )
        if spec is not None and not (is_there_still and run.is_known):
            watch.has_restarted()
        return watch

    def _retire(self, node: Node) -> None:
        was_serving = node.is_healthy and not node.is_draining
        node.is_draining = True
        if was_serving:
            self.on_lost(node.id)

    # leaving

    def _see_off(self, name: str, within_s: float, *, is_final: bool) -> None:
        if (leaving := self._leaving.pop(name, None)) is not None:
            leaving.cancel()
        if self._tasks is not None:
            watch = self._watches[name]
            task = self._tasks.create_task(self._let_end(watch, within_s, is_final=is_final))
            self._leaving[name] = task
        elif is_final:
            self._forget(name)

    async def _let_end(self, watch: NodeWatch, within_s: float, *, is_final: bool) -> None:
        """Wait until nothing runs there, but not for ever."""
        node = watch.node
        if not await _is_idle(node, within_s):
            log.warning("requests are broken off", node=node.id, running=node.running)
            watch.pool.break_off("the node was taken out while it answered")
            await _is_idle(node, _UNWINDS_WITHIN_S)
        if is_final:
            self._forget(node.id)
            log.info("node is removed", node=node.id)

    def _forget(self, name: str) -> None:
        self._gone[name] = (self._nodes[name].spec, self._watches[name].run)
        if len(self._gone) > _GONE:
            self._gone.popitem(last=False)
        del self._nodes[name], self._told[name]
        self._watches.pop(name).close()
        self._leaving.pop(name, None)
        if (keeping := self._keeping.pop(name, None)) is not None:
            keeping.cancel()
        self.on_removed(name)


async def _is_idle(node: Node, within_s: float) -> bool:
    """Whether nothing runs on the node before the time is over."""
    until = asyncio.get_running_loop().time() + within_s
    while node.running:
        if asyncio.get_running_loop().time() >= until:
            return False
        await asyncio.sleep(_LOOK_S)
    return True
