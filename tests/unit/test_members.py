"""Who belongs to the roster when several sources have a say."""

from gateway.nodes.members import ADDED, CONFIGURED, Found, Member, members
from gateway.nodes.ports import Drain, RosterTable
from gateway.routing.node import NodeSpec


def node(name: str, weight: float = 1.0) -> NodeSpec:
    return NodeSpec(engine="vllm", url=f"http://{name}", weight=weight)


def test_the_first_source_of_a_node_has_its_settings() -> None:
    """The configuration, then administrators, then what was found, in order."""
    table = RosterTable(specs={"a:1": node("a:1", 2), "b:1": node("b:1", 2)})
    names = Found("the name x", (node("b:1", 3), node("c:1", 3)))
    service = Found("the service y/z", (node("c:1", 4), node("d:1", 4)))

    wanted = members([node("a:1")], table, [names, service])

    expected = {
        "a:1": (1.0, CONFIGURED),
        "b:1": (2.0, ADDED),
        "c:1": (3.0, "the name x"),
        "d:1": (4.0, "the service y/z"),
    }
    assert expected == {name: (one.spec.weight, one.origin) for name, one in wanted.items()}


def test_a_drain_holds_for_a_node_of_any_source() -> None:
    """And of one that is not there for nobody."""
    drains = {"a:1": Drain(), "b:1": Drain(5.0), "gone:1": Drain()}
    wanted = members([node("a:1")], RosterTable(drains=drains), [Found("x", (node("b:1"),))])

    assert {
        "a:1": Member(node("a:1"), CONFIGURED, Drain()),
        "b:1": Member(node("b:1"), "x", Drain(5.0)),
    } == wanted
