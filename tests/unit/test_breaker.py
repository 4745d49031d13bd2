"""When requests go to a node that answers its probes."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.breaker import CLOSED, OPENS_AFTER, TRIALS, Breaker, answered, began, failed, probed
from gateway.routing.node import Node, NodeSpec

Event = str
EVENTS = st.lists(st.sampled_from(["failed", "began", "answered", "probed"]), max_size=30)


def after(*events: Event, breaker: Breaker = CLOSED) -> Breaker:
    """What becomes of it; every request was sent just before its event."""
    for event in events:
        match event:
            case "failed":
                breaker = failed(breaker, since=breaker.openings)
            case "failed alone":
                breaker = failed(breaker, since=breaker.openings, is_only=True)
            case "began":
                breaker = began(breaker)
            case "answered":
                breaker = answered(breaker)
            case _:
                breaker = probed(breaker)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    """One is an accident; so are many with answers between them."""
    assert "closed" == after("failed").state
    assert "closed" == after(*["failed", "answered"] * 9, "failed").state
    assert "open" == after(*["failed"] * OPENS_AFTER).state


def test_a_first_byte_is_no_answer() -> None:
    """A node that begins every answer and breaks it is broken."""
    assert "open" == after(*["began", "failed"] * OPENS_AFTER).state


def test_a_probe_makes_an_open_one_half_open_and_a_request_decides() -> None:
    """Answered, it is as new; begun, one more failure opens it; failed, it is open."""
    half_open = after("failed", "failed", "probed")

    assert "half_open" == half_open.state
    assert CLOSED.failures == after("answered", breaker=half_open).failures
    assert "closed" == after("answered", breaker=half_open).state
    assert "closed" == after("began", breaker=half_open).state
    assert "open" == after("began", "failed", breaker=half_open).state
    assert "closed" == after("began", "answered", "failed", breaker=half_open).state
    assert "open" == after("failed", breaker=half_open).state


def test_a_node_without_a_substitute_is_tried_before_it_is_open() -> None:
    """One request at a time, a few times; also where each begins an answer and breaks it."""
    alone, tried = ["failed alone"], after("failed", "failed alone")

    assert "half_open" == tried.state
    assert "closed" == after("answered", breaker=tried).state
    assert "open" == after("failed", breaker=tried).state
    assert "half_open" == after(*alone * (TRIALS - 1), breaker=tried).state
    assert "open" == after(*alone * TRIALS, breaker=tried).state
    assert "open" == after(*["began", "failed alone"] * TRIALS, breaker=tried).state


def test_what_was_sent_before_the_trials_uses_up_none() -> None:
    """A crash takes many requests with it: they fail at once, and say the same thing."""
    tried = after("failed", "failed alone")

    assert tried == failed(tried, since=0, is_only=True)


def test_after_a_probe_one_failure_is_enough_again() -> None:
    """The trials without a probe are used up until an answer was whole."""
    opened = after(*["failed alone"] * (OPENS_AFTER + TRIALS))

    assert "open" == after("probed", "failed alone", breaker=opened).state
    assert "half_open" == after("probed", "answered", "failed", "failed alone", breaker=opened).state


def test_probes_say_nothing_of_a_closed_one() -> None:
    """A node whose health path answers may fail every request all the same."""
    assert "open" == after("failed", "probed", "failed").state


def test_what_was_sent_before_it_opened_says_nothing_of_the_node_since() -> None:
    """A crash takes many requests with it, some of which notice late."""
    restarted = after("failed", "failed", "probed")

    assert restarted == failed(restarted, since=0)
    assert restarted.openings == 1


@given(EVENTS)
def test_only_a_probe_lets_an_open_one_have_requests_again(events: list[Event]) -> None:
    """And only failures open one."""
    breaker = CLOSED
    for event in events:
        before, breaker = breaker, after(event, breaker=breaker)
        if before.state == "open" != breaker.state:
            assert ("probed", "half_open") == (event, breaker.state)
        if breaker.state == "open" != before.state:
            assert ("failed", before.openings + 1) == (event, breaker.openings)


def test_a_half_open_node_has_room_for_one() -> None:
    """Whatever its cap is."""
    node = Node(spec=NodeSpec(engine="vllm", url="http://n", max_running=9), id="n", running=1)
    node.breaker = after("failed", "failed", "probed")

    assert node.is_full()
    node.running = 0
    assert not node.is_full()
    node.running, node.breaker = 8, CLOSED
    assert not node.is_full()
