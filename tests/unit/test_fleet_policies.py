"""The policies of the fleet simulator: they do what they are named for, and the oracle knows best."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fleet.card import H100_7B
from bench.fleet.contenders import CONTENDERS, FRIENDO, ORACLE
from bench.fleet.node import SimNode
from bench.fleet.policy import Policy, Sight
from bench.fleet.prompt import Prompt, Request
from bench.fleet.radix import Tree
from bench.fleet.simulation import Arrival, Simulation
from bench.fleet.tally import Tally

Shape = tuple[int, int, int]
"""A prompt's system prompt, its dialogue, and how many blocks the dialogue has by then."""

shapes = st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(1, 60))


def request_of(shape: Shape, number: int = 0) -> Request:
    system, dialogue, blocks = shape
    own = 100 + 10 * system + dialogue
    links = (b"s%d" % system, b"d%d.%d" % (own, blocks))
    prompt = Prompt(
        tokens=(64 + blocks) * 16 + 8,
        extents=((system, 64), (own, blocks)),
        answer=-1 - number,
        links=links,
        heads=((links[0], 1024),),
    )
    return Request(prompt=prompt, output_tokens=20, key=own)


class OneByOne:
    """Each prompt is asked when everything before it is over."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self._shapes = shapes
        self.done: list[Request] = []

    def begin(self) -> Iterable[Arrival]:
        return [(1000.0 * number, number) for number in range(len(self._shapes))]

    def request(self, source: object, _: float) -> Request:
        assert isinstance(source, int)
        return request_of(self._shapes[source], source)

    def ended(self, request: Request, _: float) -> Iterator[Arrival]:
        self.done.append(request)
        return iter(())


def nodes_of(count: int = 4) -> list[SimNode]:
    return [SimNode(index, H100_7B) for index in range(count)]


def mind(name: str, nodes: Sequence[SimNode]) -> Policy:
    return CONTENDERS[name](Sight(nodes=nodes, seed=1), 1)[0]


def hit_rate(name: str, prompts: Sequence[Shape]) -> float:
    nodes, traffic = nodes_of(), OneByOne(prompts)
    Simulation(nodes, [mind(name, nodes)], traffic, Tally()).run()
    return sum(one.cached_tokens for one in traffic.done) / sum(one.prompt.tokens for one in traffic.done)


@settings(max_examples=25, deadline=None)
@given(st.lists(shapes, min_size=2, max_size=25))
def test_oracle_hits_as_much_as_anyone_where_requests_do_not_meet(prompts: list[Shape]) -> None:
    """With one request at a time and room for all, nobody can know more than where the longest prefix is."""
    best = hit_rate(ORACLE, prompts)

    assert {name: rate for name in CONTENDERS if (rate := hit_rate(name, prompts)) > best + 1e-12} == {}


@given(st.lists(shapes, min_size=1, max_size=20), shapes)
def test_oracle_goes_where_the_longest_prefix_is_while_all_are_idle(
    before: list[Shape], shape: Shape
) -> None:
    """Nothing else differs between idle nodes."""
    nodes = nodes_of()
    for number, one in enumerate(before):
        extents = request_of(one).prompt.extents
        cache = nodes[number % 4].cache
        assert cache.acquire(extents, 0) is not None
        cache.release(extents, 0, float(number))
    asked = request_of(shape)

    chosen = mind(ORACLE, nodes).choose(asked, 100.0)
    cached = [node.cached_tokens(asked.prompt) for node in nodes]
    assert max(cached) - cached[chosen] < 64  # two milliseconds of prefill count as equal


@pytest.mark.parametrize("name", CONTENDERS)
def test_no_request_goes_where_it_failed_or_to_a_node_that_is_away(name: str) -> None:
    """What a gateway knows to be dead gets nothing."""
    nodes = nodes_of()
    policy = mind(name, nodes)
    policy.lost(1)
    chosen = []
    for number in range(40):
        request = request_of((number % 3, number % 8, 10), number)
        request.excluded.add(2)
        request.arrived_at = 0.0
        chosen.append(policy.choose(request, 0.0))

    assert {0, 3} >= set(chosen)


def test_only_the_dead_nodes_sessions_move() -> None:
    """A hash that is consistent leaves everybody else at home."""
    nodes = nodes_of(8)
    before, after = (mind("consistent hash", nodes) for _ in range(2))
    after.lost(3)
    for key in range(60):
        was, now = (_placed(policy, key) for policy in (before, after))
        assert was in {now, 3}


def _placed(policy: Policy, key: int) -> int:
    request = request_of((0, 0, 10))
    request.key = request.conversation = key
    request.node = policy.choose(request, 0.0)
    request.ended_at, request.is_broken = 1.0, True
    policy.ended(request, 1.0)
    return request.node


def test_bounded_hash_keeps_within_a_quarter_above_the_mean() -> None:
    """No node gets a request that would leave it with more than 1.25 times the mean."""
    policy = mind("bounded hash 1.25", nodes_of(8))
    running = Counter[int]()
    for number in range(400):
        node = policy.choose(request_of((0, 0, 10), number), 0.0)
        assert running[node] < 1.25 * (number + 1) / 8
        running[node] += 1


def test_hot_system_prompt_does_not_pull_everybody_to_one_node() -> None:
    """New dialogues behind one system prompt spread, also while no node is busy."""
    nodes = nodes_of(8)
    policy = mind(FRIENDO, nodes)
    placed = Counter[int]()
    for number in range(800):
        request = request_of((0, number, 20))
        request.conversation = request.key = number
        request.arrived_at = number / 100
        request.node = policy.choose(request, request.arrived_at)
        request.first_at = request.ended_at = request.arrived_at + 0.005
        policy.answered(request, request.first_at)
        policy.ended(request, request.ended_at)
        placed[request.node] += 1

    assert max(placed.values()) * 8 / 800 <= 1.3


@given(st.lists(st.tuples(shapes, st.integers(0, 3)), max_size=60))
def test_radix_tree_never_exceeds_its_bound(placed: list[tuple[Shape, int]]) -> None:
    """And what it says of a node's size is what it holds for it."""
    tree = Tree(4, block=16, max_tokens=16 * 200)
    for shape, node in placed:
        tree.insert(request_of(shape).prompt.extents, node)

        assert 0 <= sum(tree.sizes) <= 200


def test_radix_tree_matches_no_further_than_a_node_was_sent() -> None:
    """A dialogue's blocks count only behind the system prompt that they follow, on the same node."""
    tree = Tree(4, block=16)
    tree.insert(request_of((0, 1, 30)).prompt.extents, 2)
    tree.insert(((0, 64),), 1)

    assert tree.match(request_of((0, 1, 50)).prompt.extents) == (94, [2])
    assert tree.match(request_of((0, 2, 50)).prompt.extents) == (64, [2, 1])
    assert tree.match(request_of((1, 1, 50)).prompt.extents) == (0, [])


def test_replicas_share_where_conversations_live() -> None:
    """A follow-up that another replica gets goes where the first turn was."""
    nodes = nodes_of(8)
    replicas = CONTENDERS[FRIENDO](Sight(nodes=nodes, seed=1), 4)
    for number in range(30):
        homes = []
        for turn, policy in enumerate(replicas):
            request = request_of((0, 0, 20 + 5 * turn))
            links = [b"s", *(b"%d.%d" % (number, at) for at in range(turn + 1))]
            request.prompt = Prompt(
                tokens=request.prompt.tokens,
                extents=request.prompt.extents,
                answer=0,
                links=links,
                answered=b"%d.%d" % (number, turn + 1),
            )
            request.conversation = request.key = number
            request.arrived_at = 100.0 * turn
            request.node = policy.choose(request, request.arrived_at)
            request.first_at = request.ended_at = request.arrived_at + 1.0
            request.cached_tokens = 1024 if turn else 0
            policy.answered(request, request.first_at)
            policy.ended(request, request.ended_at)
            homes.append(request.node)
        assert len(set(homes)) == 1
