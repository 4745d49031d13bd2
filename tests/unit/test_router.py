"""The router over whole lives of requests: nothing leaks, and no answer of one node spoils the others."""

from gateway.routing.choice import Ask, RoutingRules
from gateway.routing.holdings import Placed, Sought
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.router import Decision, Outcome, Router

NOW = 1_000_000.0
BLOCK = 16


def made(name: str, *, weight: float = 1.0, cap: int = 0, block: int = BLOCK) -> Node:
    spec = NodeSpec(engine="vllm", url=f"http://{name}", weight=weight, max_running=cap)
    return Node(spec=spec, id=name, is_healthy=True, models=frozenset({"m"}), block_size=block)


def routed(router: Router, asked: Ask, now: float) -> Decision:
    decision = router.route(asked, now)
    assert isinstance(decision, Decision)
    return decision


def dialogue(router: Router, *, held: int, prompt: int, cached: int, age_s: float, now: float) -> Decision:
    """One turn of a conversation that node `a` has, answered with so many tokens from its cache."""
    sought = Sought(links=[b"own"], home=Placed(node="a", tokens=held, at=now - age_s))
    asked = Ask(model="m", key=b"k", prompt_tokens=prompt, held=router.held(sought, "m", now), bound_to="a")
    decision = routed(router, asked, now)
    router.answered(decision, now + 0.1)
    router.release(decision, now + 0.1, was_computed=True)
    router.learn(decision, Outcome(prompt, 20, cached, 0.1))
    return decision


def test_what_fits_in_no_block_is_no_eviction() -> None:
    """A prefix shorter than a block is never in the cache: that says nothing of how long others stay."""
    fleet = {"a": made("a", block=2048)}
    router = Router(fleet, Ledger(), RoutingRules())
    for number in range(20):
        dialogue(router, held=1800, prompt=1900, cached=0, age_s=30.0, now=NOW + 30 * number)

    assert not router._horizon(fleet["a"]).is_full
    assert fleet["a"].truth.reason is None


def test_a_horizon_that_was_learned_too_short_is_found_out() -> None:
    """Conversations that pause for five minutes and find everything show that five minutes are nothing."""
    fleet = {"a": made("a")}
    router = Router(fleet, Ledger(), RoutingRules())
    horizon = router._horizon(fleet["a"])
    while horizon.seconds > 30:
        horizon.learned(20.0, was_there=False)
    decisions = [
        dialogue(router, held=6000, prompt=6100, cached=5984, age_s=300.0, now=NOW + 300 * number)
        for number in range(40)
    ]

    assert horizon.seconds > 300
    assert decisions[-1].expected == 5984


def test_what_is_still_being_computed_is_no_shortfall() -> None:
    """Many first messages to one character at once: none finds what the others are computing."""
    fleet = {"a": made("a")}
    router = Router(fleet, Ledger(), RoutingRules())
    under_way = []
    for number in range(20):
        links = [b"persona", bytes([number])]
        held = router.held(Sought(links=links, head=(b"persona", 2000), key=b"k"), "m", NOW)
        places = ((links[1], 2050), (b"persona", 2000))
        asked = Ask(model="m", key=b"k", prompt_tokens=2050, held=held, shared=2000, places=places)
        under_way.append(routed(router, asked, NOW))
    for decision in under_way:
        router.release(decision, NOW + 3, was_computed=True)
        router.learn(decision, Outcome(2050, 20, 0, 3.0))

    assert fleet["a"].truth.reason is None
    assert not router._horizon(fleet["a"]).is_full


def test_a_hot_beginning_is_no_conversations_own_whatever_it_is_estimated_at() -> None:
    """The bound holds where a beginning has more tokens than its bytes would let expect, too."""
    fleet = {name: made(name) for name in "abcdefgh"}
    ledger = Ledger()
    router = Router(fleet, ledger, RoutingRules())
    ledger.note(b"persona", "a", 4000, NOW)
    now = NOW
    for number in range(400):
        now += 1.0
        links = [b"persona", number.to_bytes(4, "big")]
        held = router.held(Sought(links=links, head=(b"persona", 3000), key=links[1]), "m", now)
        places = ((links[1], 3050), (b"persona", 3000))
        asked = Ask(model="m", key=links[1], prompt_tokens=3050, held=held, shared=3000, places=places)
        decision = routed(router, asked, now)
        router.release(decision, now + 0.1, was_computed=True)
        ledger.note(b"persona", decision.node, 4000, now)
    lately = [node.lane.lately for node in fleet.values()]

    assert max(lately) <= 1.3 * sum(lately) / len(lately)
