"""Which node answers: filter, price in everybody's seconds, pick. Synchronous, pure, O(nodes).

    price = wait + (1 + evicting + waiting) * uncached / rate + running_s * answer * running

`wait` is what this request waits for others. The tokens it leaves to compute delay itself, evict others from
a node that is full (`evicting`), and delay all that wait there (`waiting`): so affinity grows stronger when
the whole fleet is busy, and gives way when one node is. Tokens that a node should have count by the odds that
they are still there. `routing.lane` keeps the numbers.

1. Nodes that got much more than the mean of late get nothing for a shared beginning alone: else the node that
   has the persona would get everybody. While a node got nearly nothing, the mean itself is the bound.
   What is shorter than `LONG_ENOUGH` attracts nobody either: all who begin with the same two words.
2. A bound conversation stays unless its node costs `home_band` cold prefills more than the best.
3. Of nodes within a twentieth of the best, rendezvous picks: replicas agree without talking, and no node is
   first by its place in a list. What lost its node spreads over the wider band: it comes in numbers.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec

from gateway.routing.holdings import LONG_ENOUGH, Held
from gateway.routing.node import Node
from gateway.routing.prefix import expected_tokens
from gateway.routing.rendezvous import winner

Route = Literal["bound", "prefix", "spread", "spill", "failover", "external"]
Unfit = Literal["unhealthy", "draining", "other_model", "full", "failed"]

_BAND = 0.05
_EQUAL_S = 0.005
"""A difference below what the network makes decides nothing, however short the prompt."""
_LEAST = 0.5
"""While a node lately got less than this share of the mean, those above the mean got too much."""


class RoutingRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How nodes are chosen."""

    home_band: float = 0.5
    """How much dearer than the best a conversation's own node may be, in cold prefills of its prompt."""
    load_bound: float = 1.25
    """A node that lately got so many times the mean gets nothing for a shared beginning alone."""
    retention_s: float = 1800.0
    """How long prefixes are believed to stay on a node, until it is learned how long they do."""
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
    held: Mapping[str, Held] = {}
    """Per node id, what it should still have in cache."""
    bound_to: str | None = None
    excluded: Collection[str] = ()
    """Nodes that failed this very request."""
    shared: int = 0
    """Tokens of the beginning that other prompts have too."""
    places: Sequence[tuple[bytes, int]] = ()
    """Prefixes that the chosen node will hold, with their tokens."""
    tenant: str = ""
    """Whose it is: tenants take turns in the line."""
    tells: bool = True
    """Whether its first byte will be seen when it comes, as that of a stream is."""


class Choice(msgspec.Struct, frozen=True):
    """The node chosen and why."""

    node: Node
    route: Route
    uncached: int
    """Tokens that it will have to compute, what it should have weighed by its odds."""


class NoNode(msgspec.Struct, frozen=True):
    """Nobody can answer. `reason` is the mildest that some node gave."""

    reason: Literal["unknown_model", "all_full", "all_down"]


def choose(
    ask: Ask, nodes: Collection[Node], rules: RoutingRules, *, rate: float, now: float
) -> Choice | NoNode:
    """Pick the node for a request. The caller reserves its slot before anything is awaited.

    `rate`: tokens a second that a node of the fleet computes, on average; `now` in steady seconds.
    """
    # `unfit` in one expression: of a thousand nodes, a call for each would cost more than all the rest.
    able = [
        node
        for node in nodes
        if node.is_healthy
        and not node.is_draining
        and ask.model in node.models
        and not node.is_full()
        and node.id not in ask.excluded
        and not 0 < rules.max_waiting < (node.waiting or 0)
    ]
    if not able:
        return NoNode(reason=_why_none(ask, nodes, rules))
    weighed = {
        node.id: expected_tokens(held.weighed, ask.prompt_tokens, node.block_size)
        for node in able
        if (held := ask.held.get(node.id)) is not None
        and (held.weighed >= LONG_ENOUGH or node.id == ask.bound_to)
    }
    near = _within_bound(ask, able, rules)
    node = near[0] if len(near) == 1 else _pick(ask, near, weighed, rules, rate=rate, now=now)
    attracted = weighed.get(node.id, 0)
    route = _route(ask, node, able, is_attracted=attracted > 0)
    return Choice(node=node, route=route, uncached=ask.prompt_tokens - attracted)


def unfit(ask: Ask, node: Node, rules: RoutingRules) -> Unfit | None:
    """Why a node can not answer a request now, if it can not."""
    if ask.model not in node.models:
        return "other_model" if node.models else "unhealthy"
    if node.id in ask.excluded:
        return "failed"
    if not node.is_healthy:
        return "unhealthy"
    if node.is_draining:
        return "draining"
    if node.is_full() or 0 < rules.max_waiting < (node.waiting or 0):
        return "full"
    return None


def draw(key: bytes, nodes: Sequence[Node]) -> Node:
    """The node that rendezvous picks for a key."""
    return nodes[winner(key, [(node.id, node.spec.weight) for node in nodes])]


def _within_bound(ask: Ask, able: list[Node], rules: RoutingRules) -> list[Node]:
    """Nodes that may get it: those that hold some of its own in any case, others unless they got too much."""
    if ask.shared < LONG_ENOUGH:
        return able
    mean = sum([node.lane.lately for node in able]) / sum([node.spec.weight for node in able])
    least = min([node.lane.lately / node.spec.weight for node in able])
    # Seven of eight nodes never get 1.25 times the mean while they share everything evenly.
    limit = mean * (1.0 if least < _LEAST * mean else rules.load_bound)
    # What others share is told by its kind: its tokens there may have been counted, `shared` is a guess.
    own = {name for name, held in ask.held.items() if not held.is_head and held.weighed > ask.shared}
    # The node that got least is always within the bound, as the bound is not below the mean.
    return [node for node in able if node.lane.lately <= limit * node.spec.weight or node.id in own] or able


def _pick(
    ask: Ask,
    near: Sequence[Node],
    weighed: Mapping[str, int],
    rules: RoutingRules,
    *,
    rate: float,
    now: float,
) -> Node:
    tokens = ask.prompt_tokens
    prices = [node.lane.price(tokens - weighed.get(node.id, 0), now) for node in near]
    low, cold = min(prices), tokens / rate
    is_lost = ask.bound_to is not None
    for node, price in zip(near, prices, strict=True):
        if node.id == ask.bound_to:
            if price <= low + rules.home_band * cold:
                return node
            is_lost = False
    limit = low + max((rules.home_band if is_lost else _BAND) * cold, _EQUAL_S)
    best = [node for node, price in zip(near, prices, strict=True) if price <= limit]
    return best[0] if len(best) == 1 else draw(ask.key, best)


def _route(ask: Ask, node: Node, able: Sequence[Node], *, is_attracted: bool) -> Route:
    if node.id == ask.bound_to:
        return "bound"
    if ask.bound_to is not None and any(one.id == ask.bound_to for one in able):
        return "spill"
    if ask.bound_to is not None or ask.excluded:
        return "failover"
    return "prefix" if is_attracted else "spread"


def _why_none(
    ask: Ask, nodes: Collection[Node], rules: RoutingRules
) -> Literal["unknown_model", "all_full", "all_down"]:
    reasons = {unfit(ask, node, rules) for node in nodes}
    if "full" in reasons:
        return "all_full"
    return "all_down" if reasons - {"other_model"} else "unknown_model"
