"""Nodes are asked a bounded number of times, at growing intervals, and each for one thing at a time."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.errors import GatewayError, NodeBroke
from gateway.nodes.errors import AdapterRefused
from gateway.rollout.loading import Loading
from gateway.rollout.record import Version

V1, V2 = Version("luna--1", "adapter", "/a/1", "small"), Version("luna--2", "adapter", "/a/2", "small")


class Fleet:
    """Nodes that fail as they are told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fault: Exception | None = None
        self.is_held = asyncio.Event()
        self.is_held.set()

    async def load(self, node: str, version: Version) -> None:
        self.asked.append((node, version.name))
        await self.is_held.wait()
        if self.fault is not None:
            raise self.fault


async def rounds(loading: Loading, step: Callable[[], None], count: int, *versions: Version) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            for version in versions:
                loading.load("a", version, tasks)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            step()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


def loading_of(fleet: Fleet, now: list[float]) -> Loading:
    return Loading(fleet, lambda: now[0], attempts=4)  # type: ignore[arg-type]


async def test_it_is_asked_later_and_later_and_then_left_alone(now: list[float]) -> None:
    """Until it was away: then it may be another one."""
    fleet = Fleet()
    fleet.fault = NodeBroke("out of memory")
    loading, times = loading_of(fleet, now), []

    def step() -> None:
        if len(fleet.asked) > len(times):
            times.append(now[0])
        now[0] += 0.25

    await rounds(loading, step, 200, V1)
    assert [0.0, 1.0, 3.0, 7.0] == times
    assert loading.has_given_up("a", V1.name)
    assert "luna--1 did not load: out of memory (4 attempts)" == loading.problems({V1.name})["a"]
    assert {} == loading.problems({V2.name})
    loading.forget({"a": {"small"}})
    assert loading.has_given_up("a", V1.name)
    loading.forget({"b": {"small"}})
    await rounds(loading, step, 1, V1)
    assert 5 == len(fleet.asked)


async def test_what_is_there_after_all_is_no_problem(now: list[float]) -> None:
    """Another replica loaded it."""
    fleet = Fleet()
    fleet.fault = NodeBroke("it broke")
    loading = loading_of(fleet, now)
    await rounds(loading, lambda: None, 1, V1)
    assert loading.problems({V1.name})
    loading.forget({"a": {"small", V1.name}})
    assert {} == loading.problems({V1.name})


@pytest.mark.parametrize("fault", [AdapterRefused("rank 32 is too large"), RuntimeError("a mistake of ours")])
async def test_an_engines_no_is_final_and_a_mistake_ends_nobody(fault: Exception, now: list[float]) -> None:
    """Asked once, or again with pauses; the task group goes on."""
    fleet = Fleet()
    fleet.fault = fault
    loading = loading_of(fleet, now)
    await rounds(loading, lambda: now.__setitem__(0, now[0] + 100), 3, V1)

    is_final = isinstance(fault, GatewayError)
    assert (1 if is_final else 3) == len(fleet.asked)
    assert is_final == loading.has_given_up("a", V1.name)


async def test_a_node_does_one_thing_at_a_time(now: list[float]) -> None:
    """The second one follows when the first has ended."""
    fleet = Fleet()
    fleet.is_held.clear()
    loading = loading_of(fleet, now)
    async with asyncio.TaskGroup() as tasks:
        for version in (V1, V2):
            loading.load("a", version, tasks)
        await asyncio.sleep(0)
        assert [("a", V1.name)] == fleet.asked
        fleet.is_held.set()
    await rounds(loading, lambda: None, 1, V2)

    assert [("a", V1.name), ("a", V2.name)] == fleet.asked
