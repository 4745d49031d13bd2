"""Tenants that wait in one line take turns, however many requests each has there."""

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.admission import AdmissionQueue, Waiter
from gateway.routing.choice import Ask
from gateway.routing.holdings import Held
from gateway.routing.node import Node, NodeSpec

NODE = Node(spec=NodeSpec(engine="vllm", url="http://a"), id="a", is_healthy=True, models=frozenset({"m"}))
TENANTS = st.sampled_from("abcdef")


class Line:
    """A line before one node, and the time, which goes on by a tenth of a second with each event."""

    def __init__(self, limit: int = 10_000) -> None:
        self.queue = AdmissionQueue(limit=limit, wait_s=1e9)
        self.now = 0.0

    def come(self, tenant: str, *, is_resident: bool = False, is_background: bool = False) -> Waiter | None:
        self.now += 0.1
        held = {"a": Held(tokens=900, odds=1.0, at=0.0)} if is_resident else {}
        ask = Ask(model="m", key=b"", prompt_tokens=1000, held=held, tenant=tenant)
        return self.queue.add(ask, is_background=is_background, now=self.now)

    def go(self) -> str | None:
        """Whose request goes."""
        self.now += 0.1
        waiter = self.queue.next_for(NODE)
        if waiter is None:
            return None
        self.queue.admitted(waiter, now=self.now)
        return waiter.ask.tenant


@given(st.dictionaries(TENANTS, st.integers(1, 30), min_size=1))
def test_a_tenant_waits_for_no_more_than_its_share(waiting: dict[str, int]) -> None:
    """Its n-th request goes after at most n of each other tenant, whoever came first and with how many."""
    line = Line()
    for tenant, count in waiting.items():
        for _ in range(count):
            line.come(tenant)
    gone = Counter[str]()
    while tenant := line.go():
        gone[tenant] += 1
        assert all(gone[other] <= gone[tenant] for other in waiting)

    assert gone == waiting


steps = st.lists(st.tuples(st.sampled_from(["come", "come", "go"]), TENANTS, st.booleans()), max_size=100)


@given(steps)
def test_tenants_that_wait_at_once_go_equally_often(what: list[tuple[str, str, bool]]) -> None:
    """Over any time in which both wait; a prompt that is resident comes one turn earlier, no more."""
    line, waiting = Line(), Counter[str]()
    ahead: Counter[tuple[str, str]] = Counter()
    """By pair: how often the first went more than the second since both wait."""
    lows, highs = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for kind, tenant, flag in what:
        if kind == "come":
            line.come(tenant, is_resident=flag)
            waiting[tenant] += 1
            continue
        if (went := line.go()) is None:
            continue
        waiting[went] -= 1
        for pair in combinations("abcdef", 2):
            if went in pair and all(waiting[one] + (one == went) for one in pair):
                ahead[pair] += 1 if went == pair[0] else -1
                lows[pair], highs[pair] = min(lows[pair], ahead[pair]), max(highs[pair], ahead[pair])
            if not all(waiting[one] for one in pair):
                ahead[pair] = lows[pair] = highs[pair] = 0
            assert highs[pair] - lows[pair] <= 3


def test_new_tenants_that_keep_coming_starve_nobody() -> None:
    """Each has one request, and more come than go: a dozen wait in the end, and it gets a twelfth."""
    line = Line()
    for _ in range(50):
        line.come("many")
    gone = Counter[bool]()
    for number in range(80):
        line.come(f"new{number}")
        gone[line.go() == "many"] += 1

    assert 80 // (len(line.queue._turns[False]) + 1) <= gone[True] <= 40


def test_who_comes_back_at_once_gets_no_more_than_others() -> None:
    """One request at a time, sent again as soon as it is answered, is no way past those who wait."""
    line = Line()
    for _ in range(20):
        line.come("many")
    gone = Counter[str | None]()
    for _ in range(20):
        line.come("one")
        gone[line.go()] += 1

    assert abs(gone["one"] - gone["many"]) <= 1


def test_interactive_goes_before_anybodys_background() -> None:
    """Turns are taken within a class."""
    line = Line()
    for tenant in "aab":
        line.come(tenant, is_background=True)
    line.come("a")
    line.come("a")

    assert "aa" == "".join(line.go() or "" for _ in range(2))
    assert ["a", "b", "a"] == [line.go() for _ in range(3)]


def test_a_full_line_has_room_for_who_has_few_there() -> None:
    """One that has most gives a place, its last one, background first, and only while it has two more."""
    line = Line(limit=4)
    first, background, last, _ = (line.come("a", is_background=number == 1) for number in range(4))
    assert line.queue.to_displace("a") is None

    for displaced in (background, line.queue._turns[False].of("a")[-1]):
        assert line.come("b") is None
        assert displaced is line.queue.to_displace("b")
        line.queue.remove(displaced)
        assert line.come("b") is not None
    assert line.queue.to_displace("b") is None
    assert [first, last] == line.queue._turns[False].of("a")


@given(steps, st.integers(0, 5))
def test_nothing_is_kept_of_tenants_that_are_gone(what: list[tuple[str, str, bool]], limit: int) -> None:
    """Whoever came, went, or gave up."""
    line, here = Line(limit or 10_000), list[Waiter]()
    for kind, tenant, flag in what:
        if kind == "come" and (waiter := line.come(tenant, is_background=flag)) is not None:
            here.append(waiter)
        elif kind == "go" and flag:
            line.go()
        elif here:
            line.queue.remove(here.pop())
    while line.go():
        pass

    assert 0 == len(line.queue)
    for turns in line.queue._turns.values():
        assert [0] * 4 == list(map(len, (turns._lines, turns._places, turns._order, turns._past)))
