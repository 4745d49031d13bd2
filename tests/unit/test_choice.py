"""Which node answers."""

from collections import Counter
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.choice import Ask, Decision, NoNode, RoutingRules, choose
from gateway.routing.node import Node, NodeSpec

RULES = RoutingRules()


def node(name: str, **facts: object) -> Node:
    spec = NodeSpec(engine="vllm", url=f"http://{name}", weight=float(str(facts.pop("weight", 1.0))))
    made = Node(spec=spec, id=name, is_healthy=True, models=frozenset({"m"}))
    for fact, value in facts.items():
        setattr(made, fact, value)
    return made


def ask(key: int = 0, **wishes: object) -> Ask:
    fields: dict[str, object] = {"model": "m", "prompt_tokens": 4000, "expected": {}, **wishes}
    return Ask(key=key.to_bytes(8, "big"), **fields)  # type: ignore[arg-type] # fields by name


states = st.builds(
    node,
    st.uuids().map(str),
    is_healthy=st.booleans(),
    is_draining=st.booleans(),
    running=st.integers(0, 50),
    pending_tokens=st.integers(0, 100_000),
    waiting=st.none() | st.integers(0, 20),
    kv_usage=st.none() | st.floats(0, 1),
)
fleets = st.lists(states, min_size=1, max_size=8)


@given(fleets, st.integers(0, 2**32))
def test_chosen_node_survived_every_filter(fleet: list[Node], key: int) -> None:
    """No request goes to a node that is away, draining or without the model."""
    decision = choose(ask(key), fleet, RULES)

    able = {one.id for one in fleet if one.is_healthy and not one.is_draining}
    if isinstance(decision, NoNode):
        assert not able
    else:
        assert decision.node in able
        assert [one.id for one in fleet] == [candidate.node for candidate in decision.candidates]


@given(st.lists(states, min_size=1, max_size=4), st.integers(0, 2**32))
def test_order_of_nodes_is_irrelevant(fleet: list[Node], key: int) -> None:
    """Replicas that list their nodes differently decide alike, and node 0 is nothing special."""
    chosen = set()
    for order in permutations(fleet):
        decision = choose(ask(key), order, RULES)
        chosen.add(decision.node if isinstance(decision, Decision) else decision.reason)

    assert len(chosen) == 1


@given(fleets, st.integers(0, 7), st.integers(1, 10_000))
def test_more_load_never_makes_a_node_cheaper(fleet: list[Node], which: int, more: int) -> None:
    """Seconds grow with what waits in front."""
    at = which % len(fleet)
    before = choose(ask(), fleet, RULES).candidates[at].seconds
    fleet[at].pending_tokens += more

    assert choose(ask(), fleet, RULES).candidates[at].seconds >= before


def test_bound_conversation_stays_while_its_node_is_a_little_busier() -> None:
    """Moving costs the prefix; a small gain does not pay for it."""
    fleet = [node("a", pending_tokens=3000), node("b")]

    decision = choose(ask(bound_to="a", expected={"a": 3900}), fleet, RULES)

    assert isinstance(decision, Decision)
    assert ("a", "bound") == (decision.node, decision.route)
    assert (3900, 100) == (decision.expected, decision.uncached)


def test_bound_conversation_spills_when_waiting_costs_more() -> None:
    """Seconds decide: 20,000 pending tokens are ten seconds, computing all anew is two."""
    fleet = [node("a", pending_tokens=20_000), node("b")]

    decision = choose(ask(bound_to="a", expected={"a": 3900}), fleet, RULES)

    assert isinstance(decision, Decision)
    assert ("b", "spill") == (decision.node, decision.route)


def test_lost_node_is_a_failover() -> None:
    """The route says why the conversation is not where it was."""
    fleet = [node("a", is_healthy=False), node("b")]

    decision = choose(ask(bound_to="a"), fleet, RULES)

    assert isinstance(decision, Decision)
    assert ("b", "failover") == (decision.node, decision.route)


def test_short_shared_prefix_attracts_nobody() -> None:
    """A persona that one node has cached must not draw every new conversation to it."""
    fleet = [node(name) for name in "abcd"]

    chosen = Counter()
    for key in range(400):
        decision = choose(ask(key, expected={"a": 800}), fleet, RULES)
        assert isinstance(decision, Decision)
        chosen[decision.node] += 1

    assert max(chosen.values()) <= 1.3 * 100


def test_long_prefix_attracts() -> None:
    """A prompt that a node has most of goes there."""
    decision = choose(ask(expected={"c": 3000}), [node(name) for name in "abcd"], RULES)

    assert isinstance(decision, Decision)
    assert ("c", "prefix") == (decision.node, decision.route)


def test_spread_respects_weights_and_the_load_bound() -> None:
    """A node of double weight gets double, and nobody gets beyond 1.25 times the mean."""
    fleet = [node("a", weight=2.0), node("b"), node("c")]

    chosen = Counter()
    for key in range(1200):
        decision = choose(ask(key), fleet, RULES)
        assert isinstance(decision, Decision)
        chosen[decision.node] += 1
        next(one for one in fleet if one.id == decision.node).running += 1

    assert 0.9 <= chosen["a"] / 600 <= 1.25
    assert max(chosen["b"], chosen["c"]) <= 1.25 * 300 + 1


def test_full_node_is_passed_over_and_a_full_fleet_is_said_to_be_full() -> None:
    """A cap is load, not absence."""
    spec = NodeSpec(engine="vllm", url="http://a", max_running=1)
    full = Node(spec=spec, id="a", is_healthy=True, models=frozenset({"m"}), running=1)

    chosen = choose(ask(), [full, node("b")], RULES)
    none = choose(ask(), [full], RULES)

    assert isinstance(chosen, Decision)
    assert isinstance(none, NoNode)
    assert ("b", "all_full") == (chosen.node, none.reason)


def test_unknown_model_is_told_from_nodes_that_are_away() -> None:
    """404 only where every node says that it does not have the model."""
    reasons = [
        choose(ask(model="other"), [node("a")], RULES),
        choose(ask(model="other"), [node("a"), node("b", models=frozenset())], RULES),
        choose(ask(), [node("a", is_healthy=False)], RULES),
    ]

    assert ["unknown_model", "all_down", "all_down"] == [
        one.reason for one in reasons if isinstance(one, NoNode)
    ]
