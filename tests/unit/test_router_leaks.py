"""Whatever happens to requests, nodes and the clock: when all is over, nothing is kept."""

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.choice import Ask, RoutingRules
from gateway.routing.holdings import Sought
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.router import Decision, Outcome, Router

NAMES = "abc"


@dataclass
class House:
    """A router, and what is under way. Every step takes one number."""

    cap: int
    fleet: dict[str, Node] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger(capacity=50, holders=2))
    under_way: list[Decision] = field(default_factory=list)
    now: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.router = Router(self.fleet, self.ledger, RoutingRules())

    def send(self, number: int) -> None:
        links, tokens = [bytes([number % 7]), bytes([number % 7, number])], 40 * number
        sought = Sought(links=links, head=(links[0], 300), settled=tokens, key=b"k")
        asked = Ask(
            model="m",
            key=links[1],
            prompt_tokens=tokens,
            held=self.router.held(sought, "m", self.now),
            bound_to=NAMES[number % 3] if number % 5 == 0 else None,
            shared=300,
            places=((links[1], tokens), (links[0], 300)),
            tells=number % 2 == 0,
        )
        if isinstance(decision := self.router.route(asked, self.now), Decision):
            self.under_way.append(decision)

    def answer(self, number: int) -> None:
        if self.under_way:
            decision = self.under_way[number % len(self.under_way)]
            self.router.answered(decision, self.now)
            self.router.learn(decision, Outcome(40 * number, 5, 30 * number, 0.1))

    def end(self, number: int) -> None:
        if self.under_way:
            decision = self.under_way.pop(number % len(self.under_way))
            self.router.release(decision, self.now, was_computed=number % 2 == 0)

    def add(self, number: int) -> None:
        name, weight = NAMES[number % 3], [0.001, 1.0, 1e6][number % 4 % 3]
        spec = NodeSpec(engine="vllm", url=f"http://{name}", weight=weight, max_running=self.cap)
        self.fleet[name] = Node(spec=spec, id=name, is_healthy=True, models=frozenset({"m"}), block_size=16)

    def remove(self, number: int) -> None:
        self.fleet.pop(NAMES[number % 3], None)

    def drain(self, number: int) -> None:
        if (node := self.fleet.get(NAMES[number % 3])) is not None:
            node.is_draining = not node.is_draining

    def poll(self, number: int) -> None:
        if (node := self.fleet.get(NAMES[number % 3])) is not None:
            node.waiting = node.working = number
            self.router.polled(node, 0.0)


_STEPS = st.sampled_from(["send", "send", "send", "answer", "end", "add", "remove", "drain", "poll"])
_LIVES = st.lists(st.tuples(_STEPS, st.integers(0, 30), st.sampled_from([0.0, 0.1, 3600.0, -3600.0])))


@settings(max_examples=300)
@given(_LIVES, st.integers(0, 3))
def test_nothing_is_left_when_all_requests_are_over(lives: list[tuple[str, int, float]], cap: int) -> None:
    """Also where a node is taken out under a request and another one comes under its name."""
    house = House(cap)
    for number in range(3):
        house.add(number)
    for step, number, seconds in lives:
        house.now += seconds
        getattr(house, step)(number)
    while house.under_way:
        house.end(0)

    for node in house.fleet.values():
        assert (node.running, node.lane.pending) == (0, 0)
        assert math.isfinite(node.lane.lately)
    assert not house.router._under_way
    marks = [mark for places in house.ledger._marks.values() for mark in places.values()]
    assert [] == [mark for mark in marks if mark.running]
    assert len(marks) == len(house.ledger) <= 50


def test_a_node_that_comes_under_an_old_name_has_none_of_the_old_ones_requests() -> None:
    """The old one was broken off and forgotten before its last request had ended."""
    house = House(cap=1)
    house.add(0)
    house.send(4)
    house.remove(0)
    house.add(0)
    house.end(0)
    house.send(4)
    house.send(4)

    assert house.fleet["a"].running == 1
    assert len(house.under_way) == 1
