"""A wall clock that is set, in either direction, while conversations go on."""

from gateway.moment import Moment
from gateway.request import ChatRequest, read_request
from gateway.routing.choice import RoutingRules
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.prefix import chain, root
from gateway.routing.router import Router
from gateway.scoring import Prefix, prefix_of_prompt
from history.conversation import Binding, Conversation, ConversationKey
from history.prompt import Prompt

NOW = Moment(steady=5_000.0, wall=1_700_000_000.0)
PARTS = tuple(b'{"role":"user","content":"%b"}' % (word * 900) for word in (b"one", b"two", b"six"))


def request() -> ChatRequest:
    body = b'{"model":"m","messages":[{"role":"user","content":"six"}],"conversation":"c"}'
    return read_request(body, {}, adopt_cache_key=False)


def prefix(bound_s_ago: float, now: Moment, *, ledger: Ledger | None = None) -> Prefix:
    """What routing makes of a conversation that node `a` answered so long ago, by the wall clock of then."""
    spec = NodeSpec(engine="vllm", url="http://a")
    node = Node(spec=spec, id="a", is_healthy=True, models=frozenset({"m"}), block_size=16)
    router = Router({"a": node}, ledger or Ledger(), RoutingRules(retention_s=1800.0))
    link = chain(root("m"), PARTS[:2]).links[-1]
    binding = Binding(node="a", prefix=link, tokens=1400, at=NOW.wall - bound_s_ago)
    conversation = Conversation(turn_count=1, binding=binding)
    prompt = Prompt(messages=PARTS, parts=PARTS)
    return prefix_of_prompt(request(), ConversationKey("t", "c"), conversation, prompt, router, now=now)


def test_a_binding_is_as_old_as_both_clocks_say() -> None:
    """Nothing was set: the stored time is told in the process's own."""
    found = prefix(100.0, NOW)

    assert found.bound_at == NOW.steady - 100
    assert found.held["a"].expected == 1400


def test_a_binding_of_the_future_attracts_and_promises_nothing() -> None:
    """The clock was set back by an hour since: nobody knows how old it is."""
    found = prefix(100.0, Moment(steady=NOW.steady, wall=NOW.wall - 3600))

    assert found.bound_at is None
    assert found.held["a"].weighed > 1000
    assert (found.held["a"].expected, found.held["a"].is_promised) == (0, False)


def test_clocks_of_replicas_that_differ_by_a_second_are_no_doubt() -> None:
    """The binding was written by a replica that is a little ahead."""
    assert prefix(-1.0, NOW).held["a"].expected == 1400


def test_a_clock_set_forward_ages_bindings_but_not_the_ledger() -> None:
    """What this replica placed itself it dates by a clock that nobody sets."""
    later = Moment(steady=NOW.steady + 10, wall=NOW.wall + 7200)
    assert prefix(100.0, later).held["a"].expected == 0

    ledger = Ledger()
    ledger.note(chain(root("m"), PARTS[:2]).links[-1], "a", 1400, NOW.steady - 100)
    assert prefix(100.0, later, ledger=ledger).held["a"].expected == 1400
