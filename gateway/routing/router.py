"""Choosing and reserving in one step, and learning from what came of it.

No await stands between reading the nodes and taking a slot, so two requests never see the same free slot.
"""

from collections.abc import Iterable, Mapping, Sequence

from gateway.routing.choice import Ask, Decision, NoNode, RoutingRules, choose
from gateway.routing.ledger import Ledger, Placement
from gateway.routing.node import Node
from gateway.routing.retention import Gates, promise

_RATE_WEIGHT = 0.2
_RATE_MIN_TOKENS = 64
"""Fewer uncached tokens than this say more about the network than about the node."""


class Router:
    """The nodes and the ledger under one set of rules.

    `by_id` is the roster's own view: nodes come and go in it. One that has a request under way stays; after
    that it may be gone, so what is learned from an answer is learned only of a node that is still there.
    """

    def __init__(self, by_id: Mapping[str, Node], ledger: Ledger, rules: RoutingRules) -> None:
        self._by_id = by_id
        self._ledger = ledger
        self._rules = rules
        self._gates = Gates(assumed_s=rules.retention_s)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, healthy or not."""
        return tuple(self._by_id.values())

    def has(self, name: str) -> bool:
        """Whether there is a node of that id (still)."""
        return name in self._by_id

    def node(self, name: str) -> Node:
        """The node of that id."""
        return self._by_id[name]

    def context(self, model: str) -> int:
        """The shortest context among the nodes that serve a model, in tokens; 0 where none is known."""
        known = (node.max_context for node in self._by_id.values() if model in node.models)
        return min((context for context in known if context), default=0)

    def held(self, links: Sequence[bytes], now: float) -> dict[str, int]:
        """Per node, the tokens it should still hold of a prompt with these links."""
        found: dict[str, int] = {}
        for placement in self._ledger.placements(reversed(links)):
            if placement.node not in found:
                tokens = self.kept(placement.node, placement.tokens, placement.at, now)
                if tokens:
                    found[placement.node] = tokens
        return found

    def kept(self, name: str, tokens: int, at: float, now: float) -> int:
        """How many of the tokens placed on a node at `at` it should still have, by what its engine tells."""
        node = self._by_id.get(name)
        return promise(tokens, now - at, node.retention.knowledge(now), self._gates) if node else 0

    def route(self, ask: Ask) -> Decision | NoNode:
        """Choose a node and reserve a slot on it; `release` gives it back."""
        decision = choose(ask, tuple(self._by_id.values()), self._rules)
        if isinstance(decision, Decision):
            node = self._by_id[decision.node]
            node.running += 1
            node.pending_tokens += decision.uncached
        return decision

    def answered(self, decision: Decision) -> None:
        """The first byte came: its prompt is computed."""
        if (node := self._by_id.get(decision.node)) is not None:
            node.pending_tokens -= decision.uncached

    def release(self, decision: Decision, *, was_answered: bool) -> None:
        """The request is over, one way or the other."""
        node = self._by_id.get(decision.node)
        if node is None:
            return
        node.running -= 1
        if not was_answered:
            node.pending_tokens -= decision.uncached

    def note(self, decision: Decision, links: Iterable[tuple[bytes, int]], now: float) -> None:
        """The node now holds these prefixes, with so many tokens each."""
        for link, tokens in links:
            self._ledger.note(link, Placement(node=decision.node, tokens=tokens, at=now))

    def measured(self, decision: Decision, *, uncached: int, seconds: float) -> None:
        """So many tokens of a prompt were computed, by the engine's count, until its first byte came.

        Never by what was expected: where prefixes were evicted, a node would look slow and lose its turns.
        """
        node = self._by_id.get(decision.node)
        if node is not None and uncached >= _RATE_MIN_TOKENS and seconds > 0:
            node.prefill_rate += _RATE_WEIGHT * (uncached / seconds - node.prefill_rate)

    def block_size(self, name: str) -> int:
        """Tokens per cache block of a node; 1 of one that is gone."""
        node = self._by_id.get(name)
        return node.block_size if node else 1

    def confirmed(self, name: str, placed_at: float, asked_at: float) -> None:
        """An answer asked for at `asked_at` found cached what was placed on the node at `placed_at`."""
        if (node := self._by_id.get(name)) is not None:
            node.retention.confirmed(placed_at, asked_at)
