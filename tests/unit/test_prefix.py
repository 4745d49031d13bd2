"""Prefix identity, the ledger of placements, and rendezvous."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.choice import RoutingRules
from gateway.routing.ledger import Ledger, Placement
from gateway.routing.node import Node, NodeSpec
from gateway.routing.prefix import chain, expected_tokens, root
from gateway.routing.rendezvous import score
from gateway.routing.router import Router

messages = st.lists(st.binary(max_size=20), max_size=8)


@given(messages, messages)
def test_links_agree_exactly_as_far_as_the_messages_do(one: list[bytes], other: list[bytes]) -> None:
    """Equal links mean an equal prefix; the first difference changes every link behind it."""
    left, right = chain(b"r", one).links, chain(b"r", other).links
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1

    assert left[:shared] == right[:shared]
    assert not set(left[shared:]) & set(right[shared:])


@given(messages, st.binary(max_size=20))
def test_extending_is_the_chain_of_one_more_message(before: list[bytes], message: bytes) -> None:
    """The link after the answer is known before the next prompt is built."""
    assert chain(b"r", [*before, message]).links[-1] == chain(b"r", before).extended(message)


def test_model_salt_and_tools_are_part_of_the_identity() -> None:
    """What differs in any of them shares no cache."""
    roots = [root("m"), root("n"), root("m", salt=b"s"), root("m", tools=b"s"), root("ms")]

    assert len(set(roots)) == len(roots)


@given(st.integers(0, 5000), st.integers(1, 5000), st.sampled_from([1, 16, 32, 128]))
def test_expected_hit_is_whole_blocks_and_leaves_a_token_to_compute(
    held: int, prompt: int, block: int
) -> None:
    """floor((held-1)/B)*B at most, and never the whole prompt."""
    expected = expected_tokens(held, prompt, block)

    assert expected % block == 0
    assert 0 <= expected < prompt
    assert expected <= max(0, held - 1)


def router_over(ledger: Ledger) -> Router:
    """A router that trusts placements for three seconds, where no event tells more."""
    nodes = {name: Node(spec=NodeSpec(engine="vllm", url=f"http://{name}"), id=name) for name in "abc"}
    return Router(nodes, ledger, RoutingRules(retention_s=3.0))


def test_the_longest_prefix_of_each_node_is_found() -> None:
    """Longest first; what is older than the horizon counts as evicted, as does a node that is gone."""
    ledger = Ledger()
    ledger.note(b"short", Placement(node="a", tokens=10, at=5.0))
    ledger.note(b"short", Placement(node="b", tokens=10, at=1.0))
    ledger.note(b"long", Placement(node="a", tokens=90, at=5.0))

    ledger.note(b"long", Placement(node="gone", tokens=99, at=5.0))
    router = router_over(ledger)

    assert {"a": 90, "b": 10} == router.held([b"short", b"long"], 4.0)
    assert {"a": 90} == router.held([b"short", b"long"], 5.0)


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), max_size=200))
def test_ledger_agrees_with_a_plain_dictionary_and_stays_within_its_cap(notes: list[tuple[int, str]]) -> None:
    """The newest of what was noted is found, and no more is kept than allowed."""
    ledger, plain = Ledger(capacity=10), {}
    for at, (link, name) in enumerate(notes):
        ledger.note(bytes([link]), Placement(node=name, tokens=at, at=at))
        plain.pop(link, None)
        plain[link] = at

    assert len(ledger) == min(10, len(plain))
    for link in list(plain)[-10:]:
        assert plain[link] in [placement.tokens for placement in ledger.placements([bytes([link])])]


def test_node_whose_cache_was_dropped_holds_only_what_came_since() -> None:
    """Its events say so: a flush, or a restart."""
    ledger = Ledger()
    for name in "ab":
        ledger.note(b"x", Placement(node=name, tokens=10, at=5.0))
    router = router_over(ledger)
    router.node("a").retention.cleared(6.0)

    assert {"b": 10} == router.held([b"x"], 6.0)

    ledger.note(b"x", Placement(node="a", tokens=10, at=6.5))
    assert {"a": 10, "b": 10} == router.held([b"x"], 7.0)


@given(st.lists(st.uuids().map(str), min_size=2, max_size=6, unique=True), st.binary(min_size=1))
def test_a_node_that_leaves_moves_only_its_own_keys(nodes: list[str], key: bytes) -> None:
    """Rendezvous: the others' winners stay."""

    def winner(among: list[str]) -> str:
        return max(among, key=lambda name: score(key, name, 1.0))

    first = winner(nodes)
    gone = next(name for name in nodes if name != first)

    assert first == winner([name for name in nodes if name != gone])


def test_rendezvous_gives_each_node_its_weight() -> None:
    """Over many keys, shares follow weights."""
    weights = {"a": 1.0, "b": 2.0, "c": 1.0}

    won = Counter(
        max(weights, key=lambda name: score(key.to_bytes(4, "big"), name, weights[name]))
        for key in range(4000)
    )

    assert abs(won["b"] - 2000) < 200
    assert abs(won["a"] - 1000) < 200
