"""Prefix identity, the ledger of placements, and rendezvous."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.choice import RoutingRules
from gateway.routing.holdings import Placed, Sought
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.prefix import chain, expected_tokens, root
from gateway.routing.rendezvous import winner
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


def nodes_of(names: str = "abc") -> dict[str, Node]:
    return {
        name: Node(
            spec=NodeSpec(engine="vllm", url=f"http://{name}"),
            id=name,
            is_healthy=True,
            models=frozenset({"m"}),
        )
        for name in names
    }


def router_over(ledger: Ledger, *, retention_s: float = 3.0) -> Router:
    """A router that trusts placements for three seconds, where no event tells more."""
    return Router(nodes_of(), ledger, RoutingRules(retention_s=retention_s))


def expected(router: Router, sought: Sought, now: float) -> dict[str, int]:
    return {name: held.expected for name, held in router.held(sought, "m", now).items() if held.expected}


def test_the_longest_prefix_of_each_node_is_found() -> None:
    """Longest first; what is older than the horizon counts as evicted, as does a node that is gone."""
    ledger = Ledger()
    ledger.note(b"short", "a", 10, 5.0)
    ledger.note(b"short", "b", 10, 1.0)
    ledger.note(b"long", "a", 90, 5.0)
    ledger.note(b"long", "gone", 99, 5.0)
    router, sought = router_over(ledger), Sought(links=[b"short", b"long"])

    assert {"a": 90, "b": 10} == expected(router, sought, 4.0)
    assert {"a": 90} == expected(router, sought, 5.0)


def test_odds_fall_with_age_and_weigh_what_is_believed() -> None:
    """A half at the horizon; young ones are as good as certain."""
    ledger = Ledger()
    ledger.note(b"x", "a", 1000, 100.0)
    router = router_over(ledger, retention_s=50.0)
    sought, times = Sought(links=[b"x"]), (100.0, 110.0, 150.0, 250.0)
    weighed = [router.held(sought, "m", now)["a"].weighed for now in times]

    assert weighed == sorted(weighed, reverse=True)
    assert [1000, 992, 500, 35] == weighed


def test_what_other_nodes_have_of_a_bound_prompt_is_found_however_old() -> None:
    """A dialogue that went elsewhere for a turn finds what it left there when it comes again."""
    ledger = Ledger()
    ledger.note(b"0", "b", 500, 1.0)
    ledger.note(b"9", "c", 700, 1.0)
    links = [b"%d" % number for number in range(10)]
    home = Placed(node="a", tokens=800, at=1.0)

    assert {"a": 800, "b": 500, "c": 700} == expected(
        router_over(ledger), Sought(links=links, home=home), 1.0
    )


def test_what_is_under_way_is_there_whatever_its_age() -> None:
    """Its blocks are pinned while it runs; what failed before it was computed was never there."""
    ledger = Ledger()
    ledger.sent(b"x", "a", 100)
    assert [("a", 100, -math.inf)] == list(ledger.of(b"x"))

    ledger.sent(b"x", "a", 90)
    ledger.sent(b"x", "a", 90)
    ledger.done(b"x", "a", 9.0, was_computed=False)
    ledger.done(b"x", "a", 8.0, was_computed=True)
    assert [("a", 100, math.inf)] == list(ledger.of(b"x"))
    ledger.done(b"x", "a", 9.0, was_computed=True)
    assert [("a", 100, 9.0)] == list(ledger.of(b"x"))

    ledger.sent(b"y", "a", 100)
    ledger.done(b"y", "a", 9.0, was_computed=False)
    assert ([], 1) == (list(ledger.of(b"y")), len(ledger))
    assert [(0, 0), (1, 100)] == [ledger.longest([b"y"]), ledger.longest([b"x", b"y"])]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["note", "sent", "done"]),
            st.integers(0, 12),
            st.sampled_from("abcd"),
            st.booleans(),
        ),
        max_size=300,
    )
)
def test_ledger_stays_within_its_caps_and_counts_itself(what: list[tuple[str, int, str, bool]]) -> None:
    """Marks in all, and holders of one link; the newest is always found."""
    ledger = Ledger(capacity=10, holders=3)
    for at, (kind, number, name, flag) in enumerate(what):
        link = bytes([number])
        if kind == "note":
            ledger.note(link, name, at, float(at))
            assert (name, at) in [(node, tokens) for node, tokens, _ in ledger.of(link)]
        elif kind == "sent":
            ledger.sent(link, name, at)
        else:
            ledger.done(link, name, float(at), was_computed=flag)
        found = [list(ledger.of(bytes([one]))) for one in range(13)]
        assert len(ledger) == sum(map(len, found)) <= 10
        assert max(map(len, found)) <= 3


def test_node_whose_cache_was_dropped_holds_only_what_came_since() -> None:
    """Its events say so: a flush, or a restart."""
    ledger = Ledger()
    for name in "ab":
        ledger.note(b"x", name, 10, 5.0)
    router, sought = router_over(ledger), Sought(links=[b"x"])
    router.node("a").retention.cleared(6.0)

    assert {"b": 10} == expected(router, sought, 6.0)

    ledger.note(b"x", "a", 10, 6.5)
    assert {"a": 10, "b": 10} == expected(router, sought, 7.0)


def test_a_short_shared_beginning_is_foretold_and_attracts_nobody_and_a_long_one_does() -> None:
    """A persona of some sentences is computed faster than it is fetched from a queue."""
    ledger = Ledger()
    for link, tokens in ((b"short", 200), (b"long", 800)):
        ledger.note(link, "b", tokens, 1.0)

    def found(link: bytes, tokens: int) -> dict[str, tuple[int, bool]]:
        home = Placed(node="a", tokens=10, at=1.0)
        links = [link, *(b"%d" % number for number in range(9))]
        sought = Sought(links=links, head=(link, tokens), home=home)
        held = router_over(ledger).held(sought, "m", 1.0)
        return {name: (one.expected, one.attracts) for name, one in held.items()}

    assert {"a": (10, True), "b": (200, False)} == found(b"short", 200)
    assert {"a": (10, True), "b": (800, True)} == found(b"long", 800)


def test_replicas_presume_alike_where_a_prompt_lies_that_nobody_remembers() -> None:
    """An answer in it was computed somewhere: rendezvous says where. It attracts; it is not expected."""
    sought = Sought(links=[b"1", b"2", b"3"], key=b"2", settled=900)
    found = [router_over(Ledger()).held(sought, "m", 1.0) for _ in range(2)]

    assert found[0] == found[1]
    ((held),) = found[0].values()
    assert (900, 0) == (held.weighed, held.expected)
    assert {} == router_over(Ledger()).held(Sought(links=[b"1"], key=b"1"), "m", 1.0)


def test_a_replica_comes_back_to_the_presumed_home_once_another_one_had_the_last_turn() -> None:
    """Else each would go on with a copy of its own, on another node, for ever."""
    sought = Sought(links=[b"1", b"2", b"3", b"4", b"5"], key=b"2", settled=900, before=b"3")
    (home,) = router_over(Ledger()).held(sought, "m", 1.0)
    (other, *_) = (name for name in "abc" if name != home)
    ours, theirs = Ledger(), Ledger()
    for ledger, link in ((ours, b"3"), (theirs, b"1")):
        ledger.note(link, other, 700, 1.0)
    at_home = Ledger()
    at_home.note(b"1", home, 700, 1.0)

    assert {other: 700} == expected(router_over(ours), sought, 1.0)
    assert router_over(theirs).held(sought, "m", 1.0)[home].weighed == 900
    assert {home: 700} == expected(router_over(at_home), sought, 1.0)


@given(st.lists(st.uuids().map(str), min_size=2, max_size=6, unique=True), st.binary(min_size=1))
def test_a_node_that_leaves_moves_only_its_own_keys(nodes: list[str], key: bytes) -> None:
    """Rendezvous: the others' winners stay."""

    def won(among: list[str]) -> str:
        return among[winner(key, [(name, 1.0) for name in among])]

    first = won(nodes)
    gone = next(name for name in nodes if name != first)

    assert first == won([name for name in nodes if name != gone])


def test_rendezvous_gives_each_node_its_weight() -> None:
    """Over many keys, shares follow weights."""
    nodes = [("a", 1.0), ("b", 2.0), ("c", 1.0)]
    won = Counter(winner(key.to_bytes(4, "big"), nodes) for key in range(4000))

    assert abs(won[1] - 2000) < 200
    assert abs(won[0] - 1000) < 200


@given(st.lists(st.uuids().map(str), min_size=1, max_size=6, unique=True), st.binary(min_size=1))
def test_equal_weights_are_drawn_alike_with_and_without_the_logarithm(nodes: list[str], key: bytes) -> None:
    """A weight that differs by nothing to speak of makes no difference."""
    alike = [(name, 1.0) for name in nodes]
    nearly = [(nodes[0], 1.0 + 1e-15), *alike[1:]]

    assert winner(key, alike) == winner(key, nearly)
