"""Which node answers."""

import math
from collections import Counter
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.choice import Ask, Choice, NoNode, RoutingRules, choose
from gateway.routing.holdings import Held
from gateway.routing.node import Node, NodeSpec
from gateway.routing.pace import Pace

RULES = RoutingRules()
NOW = 1000.0
RATE = 2000.0


def node(name: str, *, sent: int = 0, waiting: int = 0, weight: float = 1.0, **facts: object) -> Node:
    """A node that has so many tokens of one prompt under way, and so many strangers in its queue."""
    spec = NodeSpec(engine="vllm", url=f"http://{name}", weight=weight)
    made = Node(spec=spec, id=name, is_healthy=True, models=frozenset({"m"}), waiting=waiting)
    for fact, value in facts.items():
        setattr(made, fact, value)
    if sent:
        made.lane.sent(0, sent, NOW, tells=True)
    made.lane.polled(waiting + bool(sent), 0, NOW)
    made.lane.settle(Pace(), NOW, is_full=False, running=made.running)
    return made


def ask(key: int = 0, **wishes: object) -> Ask:
    fields: dict[str, object] = {"model": "m", "prompt_tokens": 4000, **wishes}
    return Ask(key=key.to_bytes(8, "big"), **fields)  # type: ignore[arg-type] # fields by name


def held(tokens: int, odds: float = 1.0) -> Held:
    return Held(tokens=tokens, odds=odds, at=NOW)


def chosen(fleet: list[Node], asked: Ask, rules: RoutingRules = RULES) -> Choice:
    choice = choose(asked, fleet, rules, rate=RATE, now=NOW)
    assert isinstance(choice, Choice)
    return choice


def where(fleet: list[Node], asked: Ask) -> tuple[str, str]:
    choice = chosen(fleet, asked)
    return choice.node.id, choice.route


states = st.builds(
    node,
    st.uuids().map(str),
    sent=st.integers(0, 100_000),
    waiting=st.integers(0, 20),
    is_healthy=st.booleans(),
    is_draining=st.booleans(),
    running=st.integers(0, 50),
)
fleets = st.lists(states, min_size=1, max_size=8)
whats_held = st.lists(st.tuples(st.integers(0, 4100), st.floats(0, 1)), max_size=8)


def spread_over(fleet: list[Node], what: list[tuple[int, float]]) -> dict[str, Held]:
    return {one.id: held(*parts) for one, parts in zip(fleet, what, strict=False)}


@given(fleets, whats_held, st.integers(0, 2**32), st.integers(0, 7))
def test_chosen_node_survived_every_filter(
    fleet: list[Node], what: list[tuple[int, float]], key: int, home: int
) -> None:
    """No request goes to a node that is away, draining or failed it, whatever that holds."""
    failed = {fleet[0].id}
    asked = ask(key, held=spread_over(fleet, what), bound_to=fleet[home % len(fleet)].id, excluded=failed)
    choice = choose(asked, fleet, RULES, rate=RATE, now=NOW)

    able = {one.id for one in fleet if one.is_healthy and not one.is_draining} - failed
    if isinstance(choice, NoNode):
        assert not able
    else:
        assert choice.node.id in able
        assert 0 < choice.uncached <= asked.prompt_tokens


@given(st.lists(states, min_size=1, max_size=4), whats_held, st.integers(0, 2**32))
def test_order_of_nodes_is_irrelevant(fleet: list[Node], what: list[tuple[int, float]], key: int) -> None:
    """Replicas that list their nodes differently decide alike, and node 0 is nothing special."""
    asked = ask(key, held=spread_over(fleet, what))
    found = set()
    for order in permutations(fleet):
        choice = choose(asked, order, RULES, rate=RATE, now=NOW)
        found.add(choice.node.id if isinstance(choice, Choice) else choice.reason)

    assert len(found) == 1


@given(st.integers(0, 50_000), st.integers(0, 10), st.integers(1, 50_000))
def test_more_load_never_attracts(sent: int, waiting: int, more: int) -> None:
    """Who does not get a request does not get it either when more waits there."""
    asked, other = ask(), node("b", sent=3000)
    before = where([node("a", sent=sent, waiting=waiting), other], asked)[0]
    after = where([node("a", sent=sent + more, waiting=waiting), other], asked)[0]

    assert (before, after) != ("b", "a")


def test_bound_conversation_stays_while_its_node_is_a_little_busier() -> None:
    """Moving costs the prefix; a small gain does not pay for it."""
    fleet = [node("a", sent=3000), node("b")]
    asked = ask(bound_to="a", held={"a": held(3901)})

    assert ("a", "bound") == where(fleet, asked)
    assert chosen(fleet, asked).uncached == 100


def test_bound_conversation_leaves_when_waiting_costs_more() -> None:
    """20,000 tokens are ten seconds of waiting, computing all anew is two."""
    assert ("b", "spill") == where(
        [node("a", sent=20_000), node("b")], ask(bound_to="a", held={"a": held(3900)})
    )


def test_a_busy_fleet_holds_on_to_what_it_has() -> None:
    """Where requests wait everywhere, a token computed for nothing delays them all."""
    asked = ask(bound_to="a", held={"a": held(3900)})

    assert ("b", "spill") == where([node("a", sent=14_000), node("b")], asked)
    assert ("a", "bound") == where([node("a", sent=14_000, waiting=8), node("b", waiting=8)], asked)


def test_node_that_answers_nobody_looks_worse_by_the_second() -> None:
    """A prompt of a tenth of a second that is out for a minute says more than any estimate."""
    stuck, busy = node("a", sent=200), node("b", sent=30_000)
    asked = ask(bound_to="a", held={"a": held(3900)})

    assert where([stuck, busy], asked) == ("a", "bound")
    later = choose(asked, [stuck, busy], RULES, rate=RATE, now=NOW + 60)
    assert isinstance(later, Choice)
    assert later.node.id == "b"


def test_what_is_doubtful_counts_by_its_odds() -> None:
    """Less that is certain beats more that is probably gone."""
    fleet = [node("a"), node("b")]

    assert where(fleet, ask(held={"a": held(3900, 0.2), "b": held(2000)})) == ("b", "prefix")


def test_lost_node_is_a_failover() -> None:
    """The route says why the conversation is not where it was."""
    fleet = [node("a", is_healthy=False), node("b")]

    assert ("b", "failover") == where(fleet, ask(bound_to="a"))
    assert ("b", "failover") == where([node("a"), node("b")], ask(excluded=["a"]))


def test_conversations_of_a_lost_node_spread_over_the_others() -> None:
    """One that is idle for the moment does not get them all."""
    fleet = [node("a", is_healthy=False), node("b"), *(node(name, running=300) for name in "cdef")]
    placed = Counter(where(fleet, ask(key, bound_to="a"))[0] for key in range(500))

    assert max(placed.values()) <= 1.3 * 100
    assert {"b"} == {where(fleet, ask(key))[0] for key in range(50)}


def test_long_prefix_attracts() -> None:
    """A prompt that a node has most of goes there."""
    assert ("c", "prefix") == where([node(name) for name in "abcd"], ask(held={"c": held(3000)}))


def test_node_that_lately_got_too_much_gets_nothing_for_a_shared_beginning() -> None:
    """A persona that one node has must not draw every conversation to it; its own ones still come."""
    fleet = [node(name) for name in "abcd"]
    fleet[0].lane.lately = 1000.0
    newcomer = ask(held={"a": held(2000)}, shared=2000)
    regular = ask(held={"a": held(3900)}, shared=2000, bound_to="a")

    assert where(fleet, newcomer)[0] != "a"
    assert where(fleet, regular) == ("a", "bound")


def test_the_last_idle_node_gets_conversations_though_no_other_got_much_more_than_the_mean() -> None:
    """Seven of eight that share a persona evenly are each at 8/7 of the mean, below the bound."""
    fleet = [node(name) for name in "abcdefgh"]
    for one in fleet[:7]:
        one.lane.lately = 1000.0
    has_persona = {name: held(2000) for name in "abcdefg"}

    assert where(fleet, ask(held=has_persona, shared=2000))[0] == "h"
    fleet[7].lane.lately = 500.0
    assert where(fleet, ask(held=has_persona, shared=2000))[0] != "h"


def test_spread_respects_weights() -> None:
    """A node of double weight gets double."""
    fleet = [node("a", weight=2.0), node("b"), node("c")]
    placed = Counter()
    for key in range(1200):
        choice = chosen(fleet, ask(key))
        placed[choice.node.id] += 1
        choice.node.lane.lately += 1

    assert 0.9 <= placed["a"] / 600 <= 1.1
    assert max(placed["b"], placed["c"]) <= 1.25 * 300 + 1


def test_full_node_is_passed_over_and_a_full_fleet_is_said_to_be_full() -> None:
    """A cap is load, not absence."""
    spec = NodeSpec(engine="vllm", url="http://a", max_running=1)
    full = Node(spec=spec, id="a", is_healthy=True, models=frozenset({"m"}), running=1)

    none = choose(ask(), [full], RULES, rate=RATE, now=NOW)

    assert where([full, node("b")], ask()) == ("b", "spread")
    assert isinstance(none, NoNode)
    assert none.reason == "all_full"


def test_unknown_model_is_told_from_nodes_that_are_away() -> None:
    """404 only where every node says that it does not have the model."""
    fleets = [
        (ask(model="other"), [node("a")]),
        (ask(model="other"), [node("a"), node("b", models=frozenset())]),
        (ask(), [node("a", is_healthy=False)]),
    ]
    found = [choose(asked, fleet, RULES, rate=RATE, now=NOW) for asked, fleet in fleets]

    assert ["unknown_model", "all_down", "all_down"] == [
        one.reason for one in found if isinstance(one, NoNode)
    ]


def test_an_empty_lane_waits_for_nothing() -> None:
    """A node that was never polled has a price as well."""
    fresh = Node(spec=NodeSpec(engine="vllm", url="http://a"), id="a")

    assert fresh.lane.wait(NOW) == 0.0
    assert math.isfinite(fresh.lane.per_token)
    assert fresh.lane.per_token > 0
