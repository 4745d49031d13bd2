"""What is noted of a prompt once its engine has counted it."""

from gateway.nodes.usage import Usage
from gateway.routing.choice import Ask, RoutingRules
from gateway.routing.holdings import Placed, Sought
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.prefix import chain
from gateway.routing.router import Decision, Router
from gateway.scoring import Prefix

NOW = 1_000_000.0
PERSONA = b"persona"


class Fleet:
    """One node, and the conversations that begin with one persona."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        spec = NodeSpec(engine="vllm", url="http://a")
        node = Node(spec=spec, id="a", is_healthy=True, models=frozenset({"m"}), block_size=16)
        self.router = Router({"a": node}, self.ledger, RoutingRules())
        self.now = NOW

    def turn(self, words: list[bytes], usage: Usage, *, guess: int, home: Placed | None = None) -> None:
        """One turn: chosen, answered, noted. `guess`: the tokens that its prompt is taken for."""
        links = chain(b"r", [PERSONA, *words])
        head = (links.links[0], guess // (1 + len(words)))
        held = self.router.held(Sought(links=links.links, head=head, home=home), "m", self.now)
        prefix = Prefix(
            chain=links, key=b"k", prompt_tokens=guess, held=held, bound_to=None, bound_at=0.0, reusable=0,
            phase="warm", head=head,
        )  # fmt: skip
        asked = Ask(model="m", key=b"k", prompt_tokens=guess, held=held, places=prefix.places)
        decision = self.router.route(asked, self.now)
        assert isinstance(decision, Decision)
        self.now += 1
        self.router.release(decision, self.now, was_computed=True)
        self.router.note(decision, prefix.placements(decision, usage), self.now)

    def persona_tokens(self) -> int:
        """How long the ledger takes the persona for."""
        ((_, tokens, _),) = self.ledger.of(chain(b"r", [PERSONA]).links[0])
        return tokens


def counted(prompt: int, cached: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=9, cached=cached)


def test_a_later_turn_leaves_the_counted_length_of_a_persona() -> None:
    """The second conversation shows how long it is; what later turns would guess is worse than that."""
    fleet = Fleet()
    fleet.turn([b"one"], counted(2100, 0), guess=2000)
    fleet.turn([b"two"], counted(2100, 1600), guess=2000)
    assert fleet.persona_tokens() == 1601

    own = Placed(node="a", tokens=2100, at=fleet.now)
    fleet.turn([b"two", b"answer", b"three"], counted(9000, 2096), guess=4000, home=own)
    assert fleet.persona_tokens() == 1601


def test_a_first_guess_goes_by_the_count_of_the_whole_prompt() -> None:
    """Where nothing was held, the head is taken for its share of what was counted."""
    fleet = Fleet()
    fleet.turn([b"one"], counted(3000, 0), guess=2000)

    assert fleet.persona_tokens() == 1500


def test_a_persona_that_only_old_conversations_use_stays_known() -> None:
    """Its mark is used with every turn, so it is not the one that goes when the ledger is full."""
    ledger = Ledger(capacity=3)
    ledger.note(b"persona", "a", 1601, 1.0)
    for number in range(10):
        ledger.sent(b"persona", "a", 1500)
        ledger.note(b"%d" % number, "a", 100, 2.0 + number)

    assert [1601] == [tokens for _, tokens, _ in ledger.of(b"persona")]
