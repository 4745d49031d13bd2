"""The fleet simulator: what goes in comes out once, in order, and nothing is found that was not there."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fleet.card import A10G_7B
from bench.fleet.companion import Companions, Crowd
from bench.fleet.contenders import CONTENDERS, FRIENDO, ORACLE, RIVALS
from bench.fleet.dialogue import Layout, Mode
from bench.fleet.node import SimNode
from bench.fleet.policy import Sight
from bench.fleet.prompt import Prompt, Request
from bench.fleet.simulation import Arrival, Simulation
from bench.fleet.tally import Tally
from history.window import WindowRule

SHORT = Crowd(
    users=12,
    personas=3,
    gap_median=20.0,
    session_median=6.0,
    away_median=200.0,
    dialogue_turns=20,
    ends_at=600.0,
    measured_from=0.0,
)
LAYOUT = Layout(window=WindowRule(min_turns=4, max_turns=8), persona_tokens=320)


class Watched(Companions):
    """A crowd whose requests are kept."""

    def __init__(self, crowd: Crowd, layout: Layout, *, seed: int) -> None:
        super().__init__(crowd, layout, seed=seed)
        self.asked: list[Request] = []
        self.done: list[Request] = []

    def request(self, source: object, now: float) -> Request | None:
        made = super().request(source, now)
        if made is not None:
            self.asked.append(made)
        return made

    def ended(self, request: Request, now: float) -> Iterator[Arrival]:
        self.done.append(request)
        yield from super().ended(request, now)


def fleet(count: int = 4, *, kv_tokens: int = 20_000) -> list[SimNode]:
    return [SimNode(index, A10G_7B, kv_tokens=kv_tokens) for index in range(count)]


def staged(
    name: str, *, seed: int = 1, replicas: int = 1, mode: Mode = "stepped", kv_tokens: int = 20_000
) -> tuple[Simulation, Watched]:
    nodes = fleet(kv_tokens=kv_tokens)
    layout = Layout(mode=mode, window=LAYOUT.window, persona_tokens=LAYOUT.persona_tokens)
    traffic = Watched(SHORT, layout, seed=seed)
    policies = CONTENDERS[name](Sight(nodes=nodes, seed=seed), replicas)
    return Simulation(nodes, policies, traffic, Tally()), traffic


def fate(requests: Sequence[Request]) -> list[tuple[float, float, float, int, int]]:
    return [(one.arrived_at, one.first_at, one.ended_at, one.node, one.cached_tokens) for one in requests]


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_request_ends_once(name: str) -> None:
    """Nothing is lost, nothing is answered twice, whoever decides."""
    simulation, traffic = staged(name, replicas=2, mode="gateway")
    tally = simulation.run()

    assert len(traffic.asked) > 100
    assert Counter(map(id, traffic.asked)) == Counter(map(id, traffic.done))
    assert tally.entered == tally.left == len(traffic.asked)
    assert all(one.arrived_at <= one.first_at <= one.ended_at for one in traffic.done)
    assert [node.load() for node in simulation.nodes] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", CONTENDERS)
def test_request_whose_node_dies_ends_once_too(name: str) -> None:
    """Begun, it is broken; not begun, it is answered elsewhere; the dead node gets nothing more."""
    simulation, traffic = staged(name)
    simulation.at(300.0, lambda now: simulation.kill(2, now, noticed_after=1.0))
    tally = simulation.run()

    assert Counter(map(id, traffic.asked)) == Counter(map(id, traffic.done))
    assert tally.entered == tally.left
    assert {one.node for one in traffic.done if one.first_at > 300.0 and not one.is_broken} <= {0, 1, 3}
    assert all(one.node == 2 for one in traffic.done if one.is_broken)


@pytest.mark.parametrize("name", [*RIVALS, FRIENDO, ORACLE])
def test_same_seed_gives_the_same_run(name: str) -> None:
    """A result can be had again; another seed gives another one."""
    runs = [staged(name, seed=seed) for seed in (3, 3, 4)]
    for simulation, _ in runs:
        simulation.run()
    first, again, other = (fate(traffic.done) for _, traffic in runs)

    assert first == again
    assert first != other


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["round robin", "cache_aware, SMG", FRIENDO, ORACLE]),
    st.sampled_from(["sliding", "stepped", "gateway"]),
    st.integers(0, 10_000),
    st.integers(6_000, 40_000),
)
def test_hits_never_exceed_what_two_prompts_share(name: str, mode: Mode, seed: int, kv_tokens: int) -> None:
    """At most the longest prefix that an earlier prompt and its answer have in common with this one."""
    simulation, traffic = staged(name, seed=seed, mode=mode, kv_tokens=kv_tokens)
    simulation.run()

    known: dict[int, int] = {}
    for one in sorted(traffic.done, key=lambda one: one.first_at):
        shared = 0
        for extent, blocks in one.prompt.extents:
            shared += min(blocks, known.get(extent, 0))
            if known.get(extent, 0) < blocks:
                break
        assert one.cached_tokens <= min(shared * 16, one.prompt.tokens - 1)
        for extent, blocks in one.prompt.extents:
            known[extent] = max(known.get(extent, 0), blocks)
        kept = (one.prompt.tokens + one.output_tokens - 1) // 16 - one.prompt.blocks()
        known[one.prompt.answer] = known.get(one.prompt.answer, 0) + max(0, kept)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(6_000, 20_000))
def test_no_node_holds_more_blocks_than_it_has(seed: int, kv_tokens: int) -> None:
    """At any time, however small its cache is."""
    simulation, _ = staged("least load, SMG", seed=seed, kv_tokens=kv_tokens)

    def check(now: float) -> None:
        for node in simulation.nodes:
            cache = node.cache
            assert 0 <= cache.pinned_blocks <= cache.capacity
            assert 0 <= cache.free_blocks <= cache.capacity - cache.pinned_blocks
        simulation.at(now + 1.0, check) if now < 700.0 else None

    simulation.at(0.0, check)
    simulation.run()


def one_prompt(number: int, *, tokens: int = 800, output: int = 50) -> Request:
    prompt = Prompt(tokens=tokens, extents=((number, tokens // 16),), answer=number)
    return Request(prompt=prompt, output_tokens=output, key=number)


def drained(node: SimNode) -> list[Request]:
    """The requests in the order of their first tokens."""
    firsts: list[Request] = []
    while (at := node.next_at()) is not None:
        first, _ = node.step(at)
        firsts += [first] if first is not None else []
    return firsts


@given(st.lists(st.integers(16, 3000), min_size=1, max_size=12))
def test_node_prefills_in_order_of_arrival(lengths: list[int]) -> None:
    """First come, first served: no later request has its first token before an earlier one."""
    node = fleet(1)[0]
    requests = [one_prompt(number, tokens=tokens) for number, tokens in enumerate(lengths)]
    for request in requests:
        request.arrived_at = 0.0
        node.enqueue(request, 0.0)

    assert list(map(id, requests)) == list(map(id, drained(node)))


def test_request_alone_takes_its_prefill_and_its_steps() -> None:
    """On an idle node time is what the card's figures say."""
    node, request = fleet(1)[0], one_prompt(1, tokens=1600, output=101)
    node.enqueue(request, 10.0)
    drained(node)

    card = node.card
    work = card.prefill_work(0, 1600) * (card.prefill_s + card.weights_s / card.chunk)
    assert request.first_at == pytest.approx(10.0 + work + card.weights_s)
    steps = 100 * card.step_s(1, 1600 + 101 / 2)
    assert request.ended_at == pytest.approx(10.0 + work + steps)


def test_second_request_for_a_prefix_that_is_being_computed_finds_it() -> None:
    """A prompt is looked up when its turn comes, not when it arrives."""
    node = fleet(1)[0]
    first, second = one_prompt(1), one_prompt(1)
    for request in (first, second):
        node.enqueue(request, 0.0)
    drained(node)

    assert (0, 784) == (first.cached_tokens, second.cached_tokens)


def test_metrics_are_as_old_as_the_last_poll() -> None:
    """What happens between two polls is not seen before the next."""
    node = SimNode(0, A10G_7B, poll_s=2.0)
    node.seen(2.5)
    for number in range(3):
        node.enqueue(one_prompt(number), 2.6)

    assert (node.seen(3.9).running, node.gauges().running) == (0, 1)
    assert (node.seen(4.0).running, node.seen(4.0).waiting) == (1, 2)


def test_prompt_that_can_never_fit_is_an_error() -> None:
    """A simulation that would wait for ever says so."""
    node = fleet(1, kv_tokens=1000)[0]
    with pytest.raises(ValueError, match="does not fit"):
        node.enqueue(one_prompt(1, tokens=2000), 0.0)
