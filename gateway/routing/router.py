"""Choosing and reserving in one step, and learning from what came of it.

No await stands between reading the nodes and taking a slot, so two requests never see the same free slot.
"""

from collections.abc import Iterable, Sequence

from gateway.routing.choice import Ask, Decision, NoNode, RoutingRules, choose
from gateway.routing.ledger import Ledger, Placement
from gateway.routing.node import Node

_RATE_WEIGHT = 0.2
_RATE_MIN_TOKENS = 64
"""Fewer uncached tokens than this say more about the network than about the node."""


class Router:
    """The nodes and the ledger under one set of rules."""

    def __init__(self, nodes: Sequence[Node], ledger: Ledger, rules: RoutingRules) -> None:
        self._by_id = {node.id: node for node in nodes}
        self._ledger = ledger
        self._rules = rules

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
        return self._ledger.held(reversed(links), since=now - self._rules.retention_s)

    def retains(self, at: float, now: float) -> bool:
        """Whether a prefix placed at `at` should not be evicted yet."""
        return now - at <= self._rules.retention_s

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
        self._by_id[decision.node].pending_tokens -= decision.uncached

    def release(self, decision: Decision, *, was_answered: bool) -> None:
        """The request is over, one way or the other."""
        node = self._by_id[decision.node]
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
        if uncached >= _RATE_MIN_TOKENS and seconds > 0:
            node = self._by_id[decision.node]
            node.prefill_rate += _RATE_WEIGHT * (uncached / seconds - node.prefill_rate)

    def forget(self, name: str) -> None:
        """A node came back without its cache."""
        self._ledger.forget(name)
