"""Who is next when a node has room."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.admission import AdmissionQueue, Waiter
from gateway.routing.choice import Ask
from gateway.routing.holdings import Held
from gateway.routing.node import Node, NodeSpec

WAIT_S = 40.0
LATER_S, EARLIER_S = 20.0, 10.0
"""Half and a quarter of it: what background work stands behind, and a resident prompt before."""


@dataclass(frozen=True)
class Comer:
    """A request that comes at a time."""

    at: float
    is_background: bool = False
    resident: str = ""
    model: str = "m"

    def ask(self, *excluded: str) -> Ask:
        held = {self.resident: Held(tokens=900, odds=1.0, at=0.0)} if self.resident else {}
        return Ask(model=self.model, key=b"", prompt_tokens=1000, held=held, excluded=excluded)


comers = st.builds(
    Comer,
    st.floats(0, 100),
    st.booleans(),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["m", "other"]),
)
crowds = st.lists(comers, max_size=40).map(lambda crowd: sorted(crowd, key=lambda one: one.at))


def node(name: str = "a", *models: str) -> Node:
    spec = NodeSpec(engine="vllm", url=f"http://{name}")
    return Node(spec=spec, id=name, is_healthy=True, models=frozenset(models or ("m",)))


def queue_of(crowd: list[Comer], *, limit: int = 1000) -> tuple[AdmissionQueue, dict[Waiter, Comer]]:
    queue, who = AdmissionQueue(limit=limit, wait_s=WAIT_S), {}
    for comer in crowd:
        waiter = queue.add(comer.ask(), is_background=comer.is_background, now=comer.at)
        if waiter is not None:
            who[waiter] = comer
    return queue, who


def drained(queue: AdmissionQueue, who: dict[Waiter, Comer], at: Node) -> list[Comer]:
    """All who can go there, in order."""
    order = []
    while (waiter := queue.next_for(at)) is not None:
        queue.admitted(waiter, now=100.0)
        order.append(who[waiter])
    return order


@given(crowds)
def test_everybody_goes_once_to_a_node_that_serves_their_model(crowd: list[Comer]) -> None:
    """Nobody twice, nobody elsewhere, nobody forgotten."""
    queue, who = queue_of(crowd)
    order = drained(queue, who, node("a", "m"))

    assert [] == [one for one in order if one.model != "m"]
    assert sum(one.model == "m" for one in crowd) == len(order)
    assert len(queue) == len(crowd) - len(order)


@given(crowds)
def test_equals_go_in_order_of_arrival(crowd: list[Comer]) -> None:
    """Same class, same residence: first come, first served."""
    queue, who = queue_of(crowd)
    order = drained(queue, who, node("a", "m", "other"))

    for is_background in (False, True):
        for resident in ("", "a"):
            alike = [one for one in order if (one.is_background, one.resident) == (is_background, resident)]
            assert alike == sorted(alike, key=lambda one: one.at)


@given(crowds)
def test_nobody_is_overtaken_by_what_came_much_later(crowd: list[Comer]) -> None:
    """So nothing starves, not even background work under traffic that never ends."""
    queue, who = queue_of(crowd)
    order = drained(queue, who, node("a", "m", "other"))

    for place, one in enumerate(order):
        for earlier in order[:place]:
            assert earlier.at <= one.at + LATER_S * one.is_background + EARLIER_S * (earlier.resident == "a")


@given(crowds)
def test_interactive_goes_before_background_that_came_with_it(crowd: list[Comer]) -> None:
    """Unless that has waited for long, or has its prompt there."""
    queue, who = queue_of(crowd)
    order = drained(queue, who, node("a", "m", "other"))

    for place, one in enumerate(order):
        for earlier in order[:place]:
            if earlier.is_background and not one.is_background and earlier.resident != "a":
                assert earlier.at + LATER_S <= one.at


def test_who_has_most_of_the_prompt_there_goes_first_there_and_only_there() -> None:
    """It would be computed again anywhere else."""
    crowd = [Comer(0.0), Comer(1.0, resident="b"), Comer(9.0, resident="a"), Comer(9.5)]

    for name, order in (("a", [2, 0, 1, 3]), ("b", [1, 0, 2, 3]), ("c", [0, 1, 2, 3])):
        assert [crowd[place] for place in order] == drained(*queue_of(crowd), node(name))


@given(crowds, st.integers(0, 10))
def test_no_more_wait_than_there_are_places(crowd: list[Comer], limit: int) -> None:
    """The next one is told so; a place that was left is free again."""
    queue, who = queue_of(crowd, limit=limit)

    assert len(queue) == min(len(crowd), limit) == len(who)
    for waiter in who:
        queue.remove(waiter)
        queue.remove(waiter)
    assert 0 == len(queue)
    assert queue.next_for(node("a", "m", "other")) is None


def test_who_failed_on_a_node_does_not_go_there_again() -> None:
    """Nor does it hold up those who can."""
    queue = AdmissionQueue(limit=9, wait_s=WAIT_S)
    failed = queue.add(Comer(0.0).ask("a"), is_background=False, now=0.0)
    fresh = queue.add(Comer(1.0).ask(), is_background=False, now=1.0)

    assert fresh is queue.next_for(node("a"))
    assert failed is queue.next_for(node("b"))


@given(st.booleans(), st.booleans(), st.floats(0, 50))
def test_newcomer_is_held_up_by_those_who_are_due_before_it(
    is_background: bool, newcomer_is_background: bool, later_s: float
) -> None:
    """And by nobody else: another model's queue, or one of background work, is none for it."""
    queue, _ = queue_of([Comer(0.0, is_background=is_background)])
    newcomer = Comer(later_s, is_background=newcomer_is_background)

    waits_for = LATER_S * is_background <= later_s + LATER_S * newcomer_is_background
    assert waits_for == queue.holds_up(newcomer.ask(), is_background=newcomer_is_background, now=later_s)
    other = Comer(later_s, model="other").ask()
    assert not queue.holds_up(other, is_background=newcomer_is_background, now=later_s)


def test_the_time_to_come_back_is_what_the_line_takes_at_its_pace() -> None:
    """Within a second and the longest wait; without a pace, the latter."""
    queue, who = queue_of([Comer(0.0)] * 30)
    assert WAIT_S == queue.retry_after_s(0.0)
    for second, waiter in enumerate(list(who)[:10]):
        queue.admitted(waiter, now=float(second))

    assert 21 == round(queue.retry_after_s(10.0))
    assert WAIT_S == queue.retry_after_s(1000.0)
    for waiter in who:
        queue.remove(waiter)
    assert 1.0 == queue.retry_after_s(10.0)
