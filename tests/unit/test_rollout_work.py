"""What is to be done on nodes: adapters by difference, whole models one node at a time, forth and back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rollout.ports import NodeView
from gateway.rollout.precheck import Host
from gateway.rollout.record import Actor, Leaving, Rollout, Trial, Version, shared, taken_back, widened
from gateway.rollout.verdict import Rule
from gateway.rollout.work import adapter_work, first_node, still_leaving, turned

WHO = Actor("ada", 0.0)
BASE = Version("small", "base")
V1, V2, V3 = (Version(f"luna--{n}", "adapter", f"/a/{n}", "small") for n in (1, 2, 3))
NEW = Version("luna--big", "model")


def node(name: str, *models: str, is_healthy: bool = True, is_draining: bool = False) -> NodeView:
    return NodeView(
        name,
        is_healthy=is_healthy,
        is_draining=is_draining,
        models=frozenset(models),
        adapters={one: "small" for one in models if one.startswith("luna--")},
        running=0,
        is_fixed=False,
        engine="vllm",
        host=Host(name),
    )


def trial(
    version: Version, state: str = "loading", first: str = "", steps: tuple[float, ...] = (0.5, 1.0)
) -> Trial:
    return Trial(1, version, state, steps, Rule(), first_node=first)  # type: ignore[arg-type]


def loads(record: Rollout, *nodes: NodeView) -> set[tuple[str, str]]:
    work = adapter_work(record, nodes, now=1000.0, drain_s=60.0)
    return {(name, version.name) for name, version in work.loads}


def test_every_node_of_the_base_gets_what_is_live_or_was_just_before() -> None:
    """Not nodes that serve something else, are away or drain."""
    record = Rollout("luna", V2, trial=trial(V3, "sharing"), earlier=(V1, BASE))
    nodes = (
        node("a", "small", V2.name),
        node("b", "small"),
        node("c", "other"),
        node("d", "small", is_healthy=False),
        node("e", "small", is_draining=True),
    )
    assert {("a", V1.name), ("a", V3.name), ("b", V1.name), ("b", V2.name), ("b", V3.name)} == loads(
        record, *nodes
    )


def test_a_trial_is_on_its_first_node_only_until_it_is_shared() -> None:
    """And on none before it is approved."""
    nodes = (node("a", "small"), node("b", "small"))
    waiting = Rollout("luna", BASE, trial=trial(V1, "waiting_for_approval", "a"))
    assert set() == loads(waiting, *nodes)
    assert {("a", V1.name)} == loads(Rollout("luna", BASE, trial=trial(V1, first="a")), *nodes)


def test_the_first_node_stays_while_it_can() -> None:
    """Another one takes its place when it is away; none can where none serves the model."""
    record = Rollout("luna", BASE, trial=trial(V1))
    both = (node("a", "small"), node("b", "small"))
    first = first_node(record, both)
    assert first in {"a", "b"}
    assert first == first_node(record, both[::-1])
    kept = Rollout("luna", BASE, trial=trial(V1, first="b"))
    assert "b" == first_node(kept, both)
    assert "a" == first_node(kept, (both[0], node("b", "small", is_healthy=False)))
    assert "" == first_node(kept, (node("c", "other"),))


def test_what_left_is_unloaded_once_it_has_drained() -> None:
    """Everywhere, and forgotten a day later where it is nowhere."""
    record = Rollout("luna", V2, leaving=(Leaving(V1, 941.0), Leaving(V3, 940.0)))
    nodes = (node("a", "small", V1.name, V2.name, V3.name), node("b", "small", V2.name))
    assert (("a", V3.name),) == adapter_work(record, nodes, now=1000.0, drain_s=60.0).unloads
    assert 2 == len(still_leaving(record, nodes, now=1000.0))
    assert record.leaving == still_leaving(record, nodes, now=90_000.0)
    assert () == still_leaving(record, nodes[1:], now=90_000.0)


class Model:
    """A fleet whose operator restarts a drained node with what it is told to."""

    def __init__(self, count: int) -> None:
        self.serves = dict.fromkeys((f"n{number}" for number in range(count)), "small")
        self.record = Rollout("luna", BASE, trial=trial(NEW, steps=(0.4, 1.0)))
        self.turns = 0

    def nodes(self) -> list[NodeView]:
        at = self.record.turning
        return [
            node(name, model, is_draining=at is not None and at.node == name)
            for name, model in self.serves.items()
        ]

    def settle(self, limit: int = 100) -> None:
        """Until nothing is to be done; only one node is ever out."""
        for _ in range(limit):
            wanted = turned(self.record, self.nodes(), now=0.0)
            if wanted == self.record.turning:
                if wanted is None:
                    return
                self.serves[wanted.node] = wanted.to
                self.turns += 1
                continue
            self.record = msgspec.structs.replace(self.record, turning=wanted)
        raise AssertionError("it never settles")

    def has(self, model: str) -> int:
        return sum(one == model for one in self.serves.values())


@given(st.integers(2, 12))
def test_whole_models_go_node_by_node_forth_and_back(count: int) -> None:
    """One node at first, then as many as its share; all in the end; and all of it back again."""
    fleet = Model(count)
    fleet.settle()
    assert 1 == fleet.has(NEW.name)
    fleet.record = shared(fleet.record, WHO)
    fleet.settle()
    assert max(1, min(count - 1, -(-count * 2 // 5))) == fleet.has(NEW.name)
    fleet.record = widened(fleet.record, WHO)
    fleet.settle()
    assert count - 1 == fleet.has(NEW.name)  # dialogues of the version before still have a node
    fleet.record = widened(fleet.record, WHO)
    fleet.settle()
    assert count == fleet.has(NEW.name) == fleet.turns
    fleet.record = taken_back(fleet.record, WHO, keep=1)
    fleet.settle()
    assert count == fleet.has("small")


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_node_that_is_out_when_it_is_taken_back_returns(has_begun: bool) -> None:
    """As it was, if it was not restarted yet; else it is restarted once more."""
    fleet = Model(3)
    fleet.record = msgspec.structs.replace(fleet.record, turning=turned(fleet.record, fleet.nodes(), now=0.0))
    at = fleet.record.turning
    assert at is not None
    if has_begun:
        fleet.serves[at.node] = at.to
    fleet.record = taken_back(fleet.record, WHO, keep=1)
    fleet.settle()

    assert (3, int(has_begun)) == (fleet.has("small"), fleet.turns)
