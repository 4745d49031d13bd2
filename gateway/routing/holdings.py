"""What every node should still have of a prompt's prefix: from its binding, from the ledger, or presumed."""

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.routing.ledger import Ledger
from gateway.routing.node import Node
from gateway.routing.retention import LIKELY, Gates, odds

LONG_ENOUGH = 256
"""Tokens. What is shorter and not a conversation's own is computed faster than it is worth going for."""

_SKEW_S = 60.0
"""Clocks of replicas that are kept by NTP differ by less."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """What one node should have of a prompt."""

    tokens: int
    odds: float
    """That they are still there when the request's turn comes, 0..1."""
    at: float
    """When they were last used, in steady seconds; infinity: they are in use."""
    is_known: bool = True
    """Whether this gateway has it from its own binding or ledger, and it was computed."""
    is_head: bool = False
    """Whether it is what other prompts share."""
    trust: float = 1.0
    """How far the node is believed to keep what it should (`routing.truth`), 0..1."""

    @property
    def weighed(self) -> int:
        """The tokens to count with when prices are compared."""
        return int(self.tokens * self.odds * self.trust)

    @property
    def attracts(self) -> bool:
        """Whether anybody would go there for it: a short beginning is foretold, and no more."""
        return not self.is_head or self.tokens >= LONG_ENOUGH

    @property
    def is_promised(self) -> bool:
        """Whether a node that can be trusted would have it."""
        return self.is_known and self.odds >= LIKELY

    @property
    def expected(self) -> int:
        """The tokens to tell others of: all or none."""
        return self.tokens if self.is_known and self.odds * self.trust >= LIKELY else 0


class Placed(msgspec.Struct, frozen=True):
    """What a conversation's binding says: its node had so many tokens of the prompt at that time.

    Well after now: a clock was set back since, here or on the replica that wrote it, and its age is unknown.
    """

    node: str
    tokens: int
    at: float


class Sought(msgspec.Struct, frozen=True):
    """A prompt's prefix as it is looked for."""

    links: Sequence[bytes]
    head: tuple[bytes, int] = (b"", 0)
    """The link of what other prompts share too (its first message), and its tokens, estimated."""
    home: Placed | None = None
    settled: int = 0
    """Of a prompt that nobody remembers: its tokens before the newest message, if an answer is among them.
    Somebody has computed these.
    """
    before: bytes = b""
    """The link of the prompt that its newest answer was given to, if it has one."""
    key: bytes = b""
    """What rendezvous goes by."""

    def long_head(self) -> tuple[bytes, int] | None:
        """The shared beginning, if it is long enough to be worth going for."""
        return self.head if self.head[1] >= LONG_ENOUGH else None


class Holdings:
    """A search for one prompt's prefix: the best of what each node should have, by tokens times odds."""

    def __init__(self, nodes: Mapping[str, Node], gates: Callable[[Node], Gates], now: float) -> None:
        self._nodes = nodes
        self._gates = gates
        self._now = now
        self.found: dict[str, Held] = {}

    def search(self, sought: Sought, ledger: Ledger) -> dict[str, Held]:
        """What the binding and the ledger say."""
        links, (head, _) = sought.links, sought.head
        if sought.home is not None:
            # Of unknown age it attracts, as a guess does: nobody is told of it, and nobody is judged by it.
            is_dated = sought.home.at <= self._now + _SKEW_S
            self._weigh(sought.home.node, sought.home.tokens, sought.home.at, is_known=is_dated)
        if head:
            for name, tokens, at in ledger.of(head):
                self._weigh(name, tokens, at, is_head=True)
            if links[0] == head:
                links = links[1:]
        for name, tokens, at in ledger.each(reversed(links)):
            self._weigh(name, tokens, at)
        return self.found

    def presume(self, sought: Sought, ledger: Ledger, draw: Callable[[bytes], str | None]) -> None:
        """Beside what is known: where rendezvous puts a prompt that nobody remembers, if it was computed.

        So replicas that know nothing of each other's requests send the same prompt to the same node, and
        whoever sees that another one had the last turn comes back there, wherever its own last one went.
        """
        longest = max((held.tokens for held in self.found.values() if held.attracts), default=0)
        guesses = [(sought.key, sought.settled, self._worth(sought, ledger))]
        if (head := sought.long_head()) is not None:
            guesses.insert(0, (*head, head[1]))
        for key, tokens, worth in guesses:
            if worth > longest and (name := draw(key)) is not None and not self._is_best(name, longest):
                self.found[name] = Held(tokens=tokens, odds=1.0, at=math.inf, is_known=False)

    def _worth(self, sought: Sought, ledger: Ledger) -> int:
        """What has to be known of other nodes, in tokens, to prefer it to a guess."""
        if not sought.before:
            return sought.settled // 2
        return 0 if any(ledger.of(sought.before)) else sought.settled

    def _is_best(self, name: str, longest: int) -> bool:
        known = self.found.get(name)
        return known is not None and known.is_known and known.tokens >= longest

    def _weigh(
        self, name: str, tokens: int, at: float, *, is_head: bool = False, is_known: bool = True
    ) -> None:
        node, best = self._nodes.get(name), self.found.get(name)
        if node is None or (best is not None and tokens <= best.tokens * best.odds):
            return
        # Whether it is found while it is still being computed is the engine's business: it attracts, no more.
        is_coming = at == -math.inf
        at = math.inf if is_coming else at
        # What counts is whether it is still there when the request's turn comes.
        age = max(0.0, self._now - at) + node.lane.wait(self._now)
        share = odds(age, node.retention.knowledge(self._now), self._gates(node))
        if share > 0 and (best is None or tokens * share > best.tokens * best.odds):
            self.found[name] = Held(
                tokens,
                share,
                at,
                is_known=is_known and not is_coming,
                is_head=is_head,
                trust=node.truth.trust,
            )
