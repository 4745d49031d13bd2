"""Requests that wait for a node: one is woken for one slot, and none of either is lost."""

import asyncio
import contextlib
import random

import pytest

from gateway.errors import NodesDown, NodesFull, UnknownModel
from gateway.routing.breaker import Breaker
from gateway.routing.choice import Ask, RoutingRules
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.router import Decision, Router
from gateway.telemetry import Telemetry
from gateway.waiting_room import WaitingRoom

Task = asyncio.Task[Decision]


class House:
    """A room before some nodes with one cap."""

    def __init__(self, *names: str, cap: int = 1, rules: RoutingRules | None = None) -> None:
        self.nodes = [
            Node(
                spec=NodeSpec(engine="vllm", url=f"http://{name}", max_running=cap),
                id=name,
                is_healthy=True,
                models=frozenset({"m"}),
            )
            for name in names
        ]
        self.router = Router({node.id: node for node in self.nodes}, Ledger(), rules or RoutingRules())
        self.telemetry = Telemetry()
        self.room = WaitingRoom(self.router, rules or RoutingRules(), self.telemetry, lambda: 1.0)

    def ask(
        self, number: int = 0, *, model: str = "m", is_background: bool = False, tenant: str = ""
    ) -> Task:
        """A request on its way in."""
        ask = Ask(model=model, key=b"%d" % number, prompt_tokens=100, tenant=tenant)
        return asyncio.create_task(self.room.admit(ask, is_background=is_background))

    def end(self, decision: Decision) -> None:
        """A request is over."""
        self.router.release(decision, 1.0, was_computed=False)
        self.room.freed(decision.node)

    @property
    def running(self) -> int:
        """On all nodes."""
        return sum(node.running for node in self.nodes)


async def settled() -> None:
    """Everybody who can go on has."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_slot_wakes_one_and_in_order() -> None:
    """However many wait."""
    house = House("a")
    tasks = [house.ask(number) for number in range(50)]
    for place, task in enumerate(tasks):
        await settled()
        assert [task.done() for task in tasks].count(True) == place + 1
        assert (1, 49 - place) == (house.running, len(house.room))
        house.end(await task)

    assert (0, 0) == (house.running, len(house.room))
    assert 49 == sum(house.telemetry.queued.counts)


async def test_interactive_first() -> None:
    """What no user waits for stands behind."""
    house = House("a")
    first = await house.ask()
    background = house.ask(is_background=True)
    await settled()
    interactive = house.ask()
    await settled()
    house.end(first)
    await settled()

    assert (True, False) == (interactive.done(), background.done())
    house.end(await interactive)
    house.end(await background)


async def test_one_tenant_does_not_fill_the_line_for_the_others() -> None:
    """Where it is full, a place of who has most is taken: its last one is told to come again."""
    house = House("a", rules=RoutingRules(queue_limit=3))
    first = await house.ask()
    flood = [house.ask(number, tenant="many") for number in range(3)]
    await settled()
    few = house.ask(9, tenant="few")
    await settled()
    with pytest.raises(NodesFull, match="other tenants"):
        await flood.pop()
    with pytest.raises(NodesFull, match="3 requests wait"):
        await house.ask(10, tenant="many")

    house.end(first)
    for task in (flood[0], few, flood[1]):
        house.end(await task)
    assert (0, 0) == (house.running, len(house.room))


async def test_newcomer_does_not_overtake_those_who_wait() -> None:
    """Also when there happens to be room, which the next look will give them."""
    house = House("a")
    first = await house.ask()
    waiting = house.ask(1)
    await settled()
    house.router.release(first, 1.0, was_computed=False)
    newcomer = house.ask(2)
    await settled()

    assert not newcomer.done()
    house.room.look(house.nodes[0])
    house.end(await waiting)
    house.end(await newcomer)


async def test_who_leaves_while_waiting_takes_no_slot() -> None:
    """Nor keeps its place."""
    house = House("a")
    first = await house.ask()
    gone, next_one = house.ask(1), house.ask(2)
    await settled()
    gone.cancel()
    await settled()
    assert 1 == len(house.room)
    house.end(first)
    house.end(await next_one)

    assert 0 == house.running


async def test_who_leaves_as_its_slot_comes_gives_it_to_the_next() -> None:
    """Before it could run a step with it."""
    house = House("a")
    first = await house.ask()
    gone, next_one = house.ask(1), house.ask(2)
    await settled()
    house.end(first)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone

    assert gone.cancelled()
    house.end(await next_one)
    assert 0 == house.running


@pytest.mark.parametrize("seed", range(20))
async def test_caps_hold_and_nothing_leaks(seed: int) -> None:
    """Requests that come, end and leave at random."""
    dice, house = random.Random(seed), House("a", "b", "c", cap=2)
    running: list[Decision] = []
    tasks: list[Task] = []
    for number in range(300):
        match dice.randrange(4):
            case 0 | 1:
                tasks.append(house.ask(number, is_background=dice.random() < 0.3))
            case 2 if tasks:
                tasks.pop(dice.randrange(len(tasks))).cancel()
            case _ if running:
                house.end(running.pop(dice.randrange(len(running))))
        if dice.random() < 0.7:
            await settled()
        done = [task for task in tasks if task.done()]
        tasks = [task for task in tasks if not task.done()]
        running += [task.result() for task in done]
        assert all(node.running <= 2 for node in house.nodes)
        assert house.running >= len(running)
    while running or tasks:
        for decision in running:
            house.end(decision)
        await settled()
        running = [task.result() for task in tasks if task.done()]
        tasks = [task for task in tasks if not task.done()]

    assert (0, 0) == (house.running, len(house.room))


async def test_too_many_and_too_long_are_refused_with_the_time_to_come_back() -> None:
    """And the place of who waited in vain is free."""
    house = House("a", rules=RoutingRules(queue_limit=1, queue_wait_s=0.05))
    first = await house.ask()
    waiting = house.ask(1)
    await settled()
    with pytest.raises(NodesFull, match="1 requests wait already") as many:
        await house.ask(2)
    with pytest.raises(NodesFull, match=r"none had room within 0\.05 s"):
        await waiting

    assert 1000 == many.value.retry_after_ms
    assert 0 == len(house.room)
    assert {"queue_full": 1, "queue_timeout": 1} == house.telemetry.events
    house.end(first)
    assert 0 == house.running


async def test_no_places_at_all() -> None:
    """Refused at once."""
    house = House("a", rules=RoutingRules(queue_limit=0))
    house.end(await house.ask())
    first = await house.ask()
    with pytest.raises(NodesFull):
        await house.ask()
    house.end(first)


async def test_waiting_is_for_full_nodes_only() -> None:
    """For a model that nobody serves there is nothing to wait for, nor for nodes that are away."""
    house = House("a", rules=RoutingRules(queue_wait_s=0.05))
    with pytest.raises(UnknownModel):
        await house.ask(model="other")
    await house.ask()
    waiting = house.ask()
    await settled()
    house.nodes[0].is_healthy = False
    with pytest.raises(NodesDown):
        await house.ask()
    with pytest.raises(NodesDown):
        await waiting


async def test_a_node_that_comes_back_takes_those_who_wait_one_by_one_until_it_answers() -> None:
    """Half-open, it gets one; then as many as its cap allows."""
    house = House("a", cap=3)
    node = house.nodes[0]
    node.breaker = Breaker("half_open", 2, 1)
    tasks = [house.ask(number) for number in range(5)]
    await settled()
    assert (1, 4) == (house.running, len(house.room))
    node.breaker = Breaker("closed", 1, 1)
    house.room.look(node)
    await settled()
    assert (3, 2) == (house.running, len(house.room))
    for task in tasks:
        house.end(await task)


async def test_a_report_of_less_waiting_lets_in_as_many_as_fit() -> None:
    """Not all who wait: the next report comes in a while."""
    house = House("a", cap=0, rules=RoutingRules(max_waiting=3))
    node = house.nodes[0]
    node.waiting = 4
    tasks = [house.ask(number) for number in range(9)]
    await settled()
    assert 0 == house.running
    node.waiting = 2
    house.room.look(node)
    await settled()
    assert 2 == house.running
    newcomer = house.ask(99)
    await settled()
    assert not newcomer.done()
    for task in [*tasks, newcomer]:
        house.end(await task)

    assert 0 == house.running
