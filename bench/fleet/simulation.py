"""Events in the order of time: requests arrive, are placed, prefilled and answered, nodes die and return.

One heap for everything. A request whose node dies before its first token is placed again elsewhere, as
gateways do; one that had begun is broken. Gateways learn of a death at the node's next poll.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Protocol

from bench.fleet.node import SimNode
from bench.fleet.policy import Policy
from bench.fleet.prompt import Request
from bench.fleet.tally import Tally

Happening = Callable[[float], None]
Arrival = tuple[float, object]
"""When, and what the traffic makes the request of."""


class Traffic(Protocol):
    """Where requests come from."""

    def begin(self) -> Iterable[Arrival]:
        """The first ones, in any order."""
        ...

    def request(self, source: object, now: float, /) -> Request | None:
        """The request that arrives now; None if it turns out that nobody asks."""
        ...

    def ended(self, request: Request, now: float, /) -> Iterable[Arrival]:
        """What follows from a request's end."""
        ...


class Simulation:
    """One fleet, one kind of gateway, one traffic. `run` plays it to its end, or until `until`."""

    def __init__(
        self, nodes: Sequence[SimNode], policies: Sequence[Policy], traffic: Traffic, tally: Tally
    ) -> None:
        self.nodes = nodes
        self.policies = policies
        self.traffic = traffic
        self.tally = tally
        self._heap: list[tuple[float, int, SimNode | None, object]] = []
        self._entries = 0
        self._arrived = 0
        self._has_begun = False

    def at(self, when: float, happening: Happening) -> None:
        """Have something happen; it is called with the time."""
        self._push(when, None, happening)

    def run(self, *, until: float = float("inf")) -> Tally:
        """Play on to the end, or until then."""
        heap = self._heap
        if not self._has_begun:
            self._has_begun = True
            for when, source in self.traffic.begin():
                self._push(when, None, source)
        while heap and heap[0][0] <= until:
            now, _, node, what = heappop(heap)
            if node is not None:
                if what == node.version:
                    self._step(node, now)
            elif callable(what):
                what(now)
            else:
                self._arrive(what, now)
        return self.tally

    def kill(self, index: int, now: float, *, noticed_after: float) -> None:
        """A node dies; replicas learn of it a little later."""
        lost = self.nodes[index].kill(now)
        self.at(now + noticed_after, lambda _: self._tell(index))
        for request in lost:
            self._fell(request, now)

    def revive(self, index: int, _: float) -> None:
        """A node is back, its cache empty."""
        self.nodes[index].is_alive = True
        for policy in self.policies:
            policy.back(index)

    def _tell(self, index: int) -> None:
        if not self.nodes[index].is_alive:
            for policy in self.policies:
                policy.lost(index)

    def _arrive(self, source: object, now: float) -> None:
        request = self.traffic.request(source, now)
        if request is None:
            return
        request.arrived_at = now
        request.replica = self._arrived % len(self.policies)
        self._arrived += 1
        self.tally.arrived(request)
        self._place(request, now)

    def _place(self, request: Request, now: float) -> None:
        policy = self.policies[request.replica]
        while True:
            node = self.nodes[policy.choose(request, now)]
            request.node = node.index
            if node.is_alive:
                break
            request.excluded.add(node.index)
            policy.ended(request, now)
            if len(request.excluded) == len(self.nodes):
                raise RuntimeError("every node is down")
        self.tally.placed(request, self.nodes)
        node.enqueue(request, now)
        self._schedule(node)

    def _step(self, node: SimNode, now: float) -> None:
        first, ended = node.step(now)
        self._schedule(node)
        if first is not None:
            self.policies[first.replica].answered(first, now)
        for request in ended:
            self._end(request, now)

    def _fell(self, request: Request, now: float) -> None:
        """A request's node died."""
        request.excluded.add(request.node)
        if request.first_at < 0:
            self.policies[request.replica].ended(request, now)
            self._place(request, now)
            return
        request.is_broken = True
        request.ended_at = now
        self._end(request, now)

    def _end(self, request: Request, now: float) -> None:
        self.policies[request.replica].ended(request, now)
        self.tally.ended(request)
        for when, source in self.traffic.ended(request, now):
            self._push(when, None, source)

    def _schedule(self, node: SimNode) -> None:
        at = node.next_at()
        if at is not None:
            self._push(at, node, node.version)

    def _push(self, when: float, node: SimNode | None, what: object) -> None:
        self._entries += 1
        heappush(self._heap, (when, self._entries, node, what))
