"""Where a request gets its node, at once or after a wait: chosen and reserved without an await between.

Whoever frees a slot reserves it for the next in line (`routing.admission`) and wakes only that one: nobody
polls, and no two are woken for one slot. A request that leaves meanwhile gives its slot to the next.
"""

import asyncio
from collections.abc import Callable

from gateway.errors import CannotServe, NodesDown, NodesFull, UnknownModel
from gateway.routing.admission import AdmissionQueue, Waiter
from gateway.routing.choice import Ask, NoNode, RoutingRules
from gateway.routing.node import Node
from gateway.routing.router import Decision, Router
from gateway.telemetry import Telemetry

_AWAY_MS = 2000
"""A node that is away is asked for its health every two seconds."""


class WaitingRoom:
    """Requests without a node, under one set of rules."""

    def __init__(
        self, router: Router, rules: RoutingRules, telemetry: Telemetry, clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._rules = rules
        self._telemetry = telemetry
        self._clock = clock
        self._line = AdmissionQueue(limit=rules.queue_limit, wait_s=rules.queue_wait_s)
        self._slots: dict[Waiter, asyncio.Future[Decision]] = {}

    def __len__(self) -> int:
        return len(self._line)

    async def admit(self, ask: Ask, *, is_background: bool) -> Decision:
        """The node for a request, with a slot reserved on it.

        Raises `UnknownModel`, `NodesDown`, or `NodesFull` if there is no place to wait or the wait too long.
        """
        if not self._line or not self._line.holds_up(ask, is_background=is_background, now=_now()):
            decision = self._router.route(ask, self._clock())
            if isinstance(decision, Decision):
                return decision
            if decision.reason != "all_full":
                raise _none(decision, ask.model)
        return await self._wait(ask, is_background=is_background)

    def freed(self, name: str) -> None:
        """A request on this node is over."""
        if self._line and self._router.has(name):
            # A node whose own queue is the limit has no countable slots: one comes for one that went.
            self._hand(self._router.node(name), 1 if self._rules.max_waiting else len(self._line))

    def look(self, node: Node) -> None:
        """Something new is known of this node: it may have room."""
        if not self._line:
            return
        room = len(self._line)
        if self._rules.max_waiting and node.waiting is not None:
            room = self._rules.max_waiting + 1 - node.waiting
        self._hand(node, room)

    def _hand(self, node: Node, most: int) -> None:
        """Reserve at most so many slots for those who are next."""
        while most > 0 and (waiter := self._line.next_for(node)) is not None:
            slot = self._slots[waiter]
            if slot.done():
                # It was told to leave and has not come to do so.
                self._line.remove(waiter)
                continue
            decision = self._router.route(waiter.ask, self._clock())
            if not isinstance(decision, Decision):
                return
            self._line.admitted(waiter, now=_now())
            slot.set_result(decision)
            most -= 1

    async def _wait(self, ask: Ask, *, is_background: bool) -> Decision:
        since = _now()
        if (displaced := self._line.to_displace(ask.tenant)) is not None:
            self._turn_away(displaced)
        waiter = self._line.add(ask, is_background=is_background, now=since)
        if waiter is None:
            self._telemetry.events["queue_full"] += 1
            raise self._full(ask, f"and {len(self._line)} requests wait already")
        loop = asyncio.get_running_loop()
        slot = self._slots[waiter] = loop.create_future()
        timer = loop.call_later(self._rules.queue_wait_s, self._give_up, waiter)
        try:
            decision: Decision = await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled() and slot.exception() is None:
                self._pass_on(slot.result())
            raise
        else:
            return decision
        finally:
            timer.cancel()
            del self._slots[waiter]
            self._line.remove(waiter)
            self._telemetry.queued.observe(_now() - since)

    def _turn_away(self, waiter: Waiter) -> None:
        """It waits, but others of its tenant do, too, and one of a tenant that has few there has come."""
        self._line.remove(waiter)
        slot = self._slots[waiter]
        if not slot.done():
            self._telemetry.events["queue_full"] += 1
            slot.set_exception(self._full(waiter.ask, "and other tenants wait for them"))

    def _give_up(self, waiter: Waiter) -> None:
        """Its time is over. What is wrong may have changed meanwhile."""
        slot = self._slots[waiter]
        if slot.done():
            return
        self._line.remove(waiter)
        self._telemetry.events["queue_timeout"] += 1
        decision = self._router.route(waiter.ask, self._clock())
        if isinstance(decision, Decision):
            slot.set_result(decision)
        elif decision.reason == "all_full":
            waited = f"and none had room within {self._rules.queue_wait_s:g} s"
            slot.set_exception(self._full(waiter.ask, waited))
        else:
            slot.set_exception(_none(decision, waiter.ask.model))

    def _pass_on(self, decision: Decision) -> None:
        self._router.release(decision, self._clock(), was_computed=False)
        self.freed(decision.node)

    def _full(self, ask: Ask, why: str) -> NodesFull:
        seconds = self._line.retry_after_s(_now())
        return NodesFull(
            f"every node that serves '{ask.model}' is at its limit, {why}", retry_after_ms=int(seconds * 1000)
        )


def _none(none: NoNode, model: str) -> UnknownModel | CannotServe:
    if none.reason == "unknown_model":
        return UnknownModel(model)
    return NodesDown(f"no node that serves '{model}' is up", retry_after_ms=_AWAY_MS)


def _now() -> float:
    return asyncio.get_running_loop().time()
