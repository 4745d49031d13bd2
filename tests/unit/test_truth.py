"""Expected against actual: who is believed, and what a shortfall looks like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes.shortfall_notes import shortfall_notes
from gateway.routing.choice import Ask, RoutingRules
from gateway.routing.holdings import Placed, Sought
from gateway.routing.ledger import Ledger
from gateway.routing.node import EngineFacts, Node, NodeSpec
from gateway.routing.router import Decision, Outcome, Router
from gateway.routing.truth import Answer, Truth

BLOCK = 16


def truth_of(answers: list[tuple[int, int, float]]) -> Truth:
    truth = Truth()
    for expected, cached, age_s in answers:
        truth.told(Answer(expected=expected, cached=cached, age_s=age_s), BLOCK)
    return truth


@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 9000), st.floats(-1, 5000)), max_size=80))
def test_trust_is_a_share_and_a_reason_stands_beside_less_than_one(
    answers: list[tuple[int, int, float]],
) -> None:
    """Whatever engines report."""
    truth = truth_of(answers)

    assert 0 <= truth.trust <= 1
    assert (truth.trust < 1) == (truth.reason is not None)


def test_a_few_misses_and_small_shortfalls_are_nothing() -> None:
    """Conversations are evicted now and then, and blocks are rounded."""
    assert truth_of([(1000, 0, 5.0)] * 7).reason is None
    assert truth_of([(1000, 0, 5.0)] * 3 + [(1000, 984, 5.0)] * 9).reason is None


SHORTFALLS = {
    "nothing": [(1000 + 100 * number, 0, 5.0) for number in range(10)],
    "rewritten": [(1000 + 100 * number, 320, 5.0) for number in range(10)],
    "blocks": [(900 + 37 * number, 512 if number % 3 == 0 else 256, 5.0) for number in range(10)],
    "evicted": [(1000, 1000, 5.0), (1000, 0, 900.0), (1000, 0, 700.0)] * 6,
    "unclear": [(1000, 333 if number % 2 else 16, 5.0) for number in range(10)],
}


@pytest.mark.parametrize("reason", SHORTFALLS)
def test_each_shortfall_is_named(reason: str) -> None:
    """As an operator would tell them apart with the same numbers."""
    truth = truth_of(SHORTFALLS[reason])

    assert truth.reason == reason
    assert truth.trust < 0.5


def test_what_was_evicted_a_day_ago_is_no_dead_cache() -> None:
    """Nothing is found, but nothing of it was young."""
    assert truth_of([(1000, 0, 80_000.0)] * 10).reason == "evicted"


def test_a_node_is_believed_again_when_it_keeps_what_it_should() -> None:
    """Not at the first good answer: it must be sound again."""
    truth = truth_of([(1000, 0, 5.0)] * 20)
    states = []
    for _ in range(32):
        truth.told(Answer(expected=1000, cached=1000, age_s=5.0), BLOCK)
        states.append(truth.reason is None)

    assert not any(states[:20])
    assert states[-1]
    assert truth.trust == 1.0


def test_a_restart_begins_anew() -> None:
    """The flag that was missing may be there now."""
    truth = truth_of([(1000, 0, 5.0)] * 20)
    truth.forget()

    assert (1.0, None, None) == (truth.trust, truth.reason, truth.kept)


def test_routing_stops_paying_for_what_is_never_there() -> None:
    """A node without a cache loses its pull after a few answers; the others' horizon is not touched by it."""
    spec = NodeSpec(engine="vllm", url="http://a")
    nodes = {
        name: Node(spec=spec, id=name, is_healthy=True, models=frozenset({"m"}), block_size=BLOCK)
        for name in "ab"
    }
    router = Router(nodes, Ledger(), RoutingRules())
    sought = Sought(links=[b"x"], home=Placed(node="a", tokens=4000, at=100.0))

    def weighed() -> int:
        return router.held(sought, "m", 105.0)["a"].weighed

    assert weighed() > 3900
    for _ in range(10):
        held = router.held(sought, "m", 105.0)
        asked = Ask(model="m", key=b"k", prompt_tokens=4100, held=held, bound_to="a")
        decision = router.route(asked, 105.0)
        assert isinstance(decision, Decision)
        router.release(decision, 105.0, was_computed=True)
        outcome = Outcome(prompt_tokens=4100, completion_tokens=5, cached_tokens=0, first_s=0.1)
        router.learn(decision, outcome)

    assert nodes["a"].truth.reason == "nothing"
    assert weighed() == 0
    assert router.held(sought, "m", 105.0)["a"].is_promised


@pytest.mark.parametrize("reason", SHORTFALLS)
def test_operators_are_told_in_words(reason: str) -> None:
    """One note per reason, and none where the engine says itself that it caches nothing."""
    node = Node(spec=NodeSpec(engine="vllm", url="http://a"), id="a", truth=truth_of(SHORTFALLS[reason]))
    (note,) = shortfall_notes(node)
    node.facts = EngineFacts(caches=False)

    assert "trusted less" in note
    assert (reason == "nothing") == (shortfall_notes(node) == ())
    assert shortfall_notes(Node(spec=node.spec, id="b")) == ()


def misses(*, restarted: bool) -> float:
    """The odds of what is five minutes old, as the next poll leaves them after misses of what was younger."""
    node = Node(
        spec=NodeSpec(engine="vllm", url="http://a"), id="a", is_healthy=True, models=frozenset({"m"})
    )
    router = Router({"a": node}, Ledger(), RoutingRules())
    for number in range(20):
        held = router.held(Sought(links=[b"x"], home=Placed(node="a", tokens=4000, at=100.0)), "m", 160.0)
        decision = router.route(Ask(model="m", key=b"%d" % number, prompt_tokens=4100, held=held), 160.0)
        assert isinstance(decision, Decision)
        router.release(decision, 160.0, was_computed=True)
        router.learn(decision, Outcome(prompt_tokens=4100, completion_tokens=5, cached_tokens=0, first_s=0.1))
    if restarted:
        node.retention.emptied(161.0)
        node.truth.forget()
    router.polled(node, 161.0)
    later = Sought(links=[b"y"], home=Placed(node="a", tokens=4000, at=200.0))
    return router.held(later, "m", 500.0)["a"].odds


def test_misses_after_a_restart_say_nothing_of_how_long_prefixes_stay() -> None:
    """They come before the next poll tells of it, from everybody at once."""
    assert misses(restarted=True) > 0.99
    assert misses(restarted=False) < 0.6
