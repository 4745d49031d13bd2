"""Which node answers: filter, price in expected seconds, pick. The decision is a value.

    seconds = uncached / prefill_rate + pending / prefill_rate + waiting * s + 0.15 * k / (1 - k)

with `uncached` the prompt tokens the node would have to compute, `pending` those of requests sent to it
that have no byte yet, `waiting` its reported queue and k its KV usage (the KV term: SMG's `least_load`).

1. A bound conversation stays on its node unless another one would answer `spill_gain_s` sooner; a spilled
   turn does not move the binding.
2. Otherwise the cheapest node that holds at least `min_match_tokens` of the prompt. A shorter shared
   prefix, a persona for example, does not attract: else one node would get every new conversation.
3. Otherwise weighted rendezvous under a bound on load: at most `load_bound` times the mean.

Synchronous and pure; ties break by rendezvous, so no node is first by its place in a list. O(nodes).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec

from gateway.routing.node import Node
from gateway.routing.rendezvous import score

Route = Literal["bound", "prefix", "spread", "spill", "failover", "external"]
Unfit = Literal["unhealthy", "draining", "other_model", "full", "failed"]


class RoutingRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How nodes are chosen."""

    spill_gain_s: float = 2.0
    """A bound turn leaves its node only if that answers so much sooner."""
    min_match_tokens: int = 1024
    """A shorter shared prefix does not attract a request that is not bound."""
    load_bound: float = 1.25
    """No node gets unbound requests beyond so many times the mean load."""
    retention_s: float = 1800.0
    """How old a prefix may be on a node before it counts as evicted."""
    waiting_s: float = 0.5
    """What one request in a node's queue costs, where nothing better is known."""
    max_waiting: int = 0
    """A node that reports more requests in its own queue than this gets no more; 0: however many."""
    queue_limit: int = 1000
    """Requests that may wait here while every node is at its limit; the next one is refused."""
    queue_wait_s: float = 30.0
    """How long one waits for a node before it is refused."""


class Ask(msgspec.Struct, frozen=True):
    """What the choice needs to know of a request."""

    model: str
    key: bytes
    """What rendezvous goes by: the conversation, or the prompt's own beginning."""
    prompt_tokens: int
    """Estimated."""
    expected: Mapping[str, int]
    """Tokens per node id that it should still have in cache."""
    bound_to: str | None = None
    excluded: Collection[str] = ()
    """Nodes that failed this very request."""


class Candidate(msgspec.Struct, frozen=True):
    """One node's numbers. `unfit` says why it was out; the rest is in tokens and seconds."""

    node: str
    unfit: Unfit | None = None
    expected: int = 0
    seconds: float = 0.0
    load: int = 0


class Decision(msgspec.Struct, frozen=True):
    """The node chosen and why, with the numbers of every candidate."""

    node: str
    route: Route
    expected: int
    uncached: int
    candidates: tuple[Candidate, ...]


class NoNode(msgspec.Struct, frozen=True):
    """Nobody can answer. `reason` is the mildest that some node gave."""

    reason: Literal["unknown_model", "all_full", "all_down"]
    candidates: tuple[Candidate, ...]


def choose(ask: Ask, nodes: Sequence[Node], rules: RoutingRules) -> Decision | NoNode:
    """Pick the node for a request. The caller reserves its slot before anything is awaited."""
    candidates = tuple(_candidate(ask, node, rules) for node in nodes)
    fit = [
        (candidate, node) for candidate, node in zip(candidates, nodes, strict=True) if not candidate.unfit
    ]
    if not fit:
        return NoNode(reason=_why_none(candidates), candidates=candidates)
    best, route = _pick(ask, fit, rules)
    return Decision(
        node=best.node,
        route=route,
        expected=best.expected,
        uncached=ask.prompt_tokens - best.expected,
        candidates=candidates,
    )


def _pick(ask: Ask, fit: Sequence[tuple[Candidate, Node]], rules: RoutingRules) -> tuple[Candidate, Route]:
    cheapest = min(fit, key=lambda pair: (pair[0].seconds, -_draw(ask, pair[1])))[0]
    bound = next((candidate for candidate, _ in fit if candidate.node == ask.bound_to), None)
    if bound is not None:
        if bound.seconds - cheapest.seconds > rules.spill_gain_s:
            return cheapest, "spill"
        return bound, "bound"
    lost = bool(ask.bound_to or ask.excluded)
    if cheapest.expected >= rules.min_match_tokens:
        return cheapest, "failover" if lost else "prefix"
    return _spread(ask, fit, rules), "failover" if lost else "spread"


def _spread(ask: Ask, fit: Sequence[tuple[Candidate, Node]], rules: RoutingRules) -> Candidate:
    """The highest rendezvous score among nodes within the load bound (Mirrokni et al. 2018)."""
    weights = sum(node.spec.weight for _, node in fit)
    total = sum(candidate.load for candidate, _ in fit) + 1

    def within(pair: tuple[Candidate, Node]) -> bool:
        return pair[0].load < rules.load_bound * total * pair[1].spec.weight / weights

    # The least loaded node is always within the bound, as the bound is above the mean.
    return max(filter(within, fit), key=lambda pair: _draw(ask, pair[1]))[0]


def _candidate(ask: Ask, node: Node, rules: RoutingRules) -> Candidate:
    unfit = _unfit(ask, node, rules)
    if unfit:
        return Candidate(node=node.id, unfit=unfit)
    expected = min(ask.expected.get(node.id, 0), ask.prompt_tokens)
    uncached = ask.prompt_tokens - expected
    usage = min(node.kv_usage or 0.0, 0.99)
    seconds = (
        (uncached + node.pending_tokens) / node.prefill_rate
        + (node.waiting or 0) * rules.waiting_s
        + 0.15 * usage / (1 - usage)
    )
    return Candidate(
        node=node.id, expected=expected, seconds=seconds, load=max(node.running, node.waiting or 0)
    )


def _unfit(ask: Ask, node: Node, rules: RoutingRules) -> Unfit | None:
    if node.models and ask.model not in node.models:
        return "other_model"
    if node.id in ask.excluded:
        return "failed"
    if not node.is_healthy or not node.models:
        return "unhealthy"
    if node.is_draining:
        return "draining"
    if node.is_full() or 0 < rules.max_waiting < (node.waiting or 0):
        return "full"
    return None


def _draw(ask: Ask, node: Node) -> float:
    return score(ask.key, node.id, node.spec.weight)


def _why_none(candidates: Sequence[Candidate]) -> Literal["unknown_model", "all_full", "all_down"]:
    reasons = {candidate.unfit for candidate in candidates}
    if "full" in reasons:
        return "all_full"
    if reasons - {"other_model"}:
        return "all_down"
    return "unknown_model"
