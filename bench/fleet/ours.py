"""This product's routing in the simulator: its own choice, ledger and router, fed as the gateway feeds them.

What `gateway.scoring` does with a prompt's bytes is done here with the simulated links: the binding says what
its node holds, the ledger what the others do, tokens are counted exactly. Replicas have ledgers and loads of
their own and share the bindings, as they share a Redis.
"""

from collections.abc import Sequence

import msgspec

from bench.fleet.policy import Policy, Sight
from bench.fleet.prompt import Request
from gateway.routing.choice import Ask, Decision, RoutingRules
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.prefix import expected_tokens
from gateway.routing.router import Router

_MODEL = "m"
_RECENT = 6


class Bound(msgspec.Struct, frozen=True, gc=False):
    """A binding, with what the gateway's has."""

    node: str
    prefix: bytes
    tokens: int
    at: float


Bindings = dict[int, Bound]


class Ours:
    """One replica."""

    def __init__(self, sight: Sight, bindings: Bindings, rules: RoutingRules) -> None:
        self._sight = sight
        self._bindings = bindings
        self.nodes = [_node(index, sight) for index in range(len(sight.nodes))]
        self._index = {node.id: index for index, node in enumerate(self.nodes)}
        self._polls = [-1] * len(self.nodes)
        self.ledger = Ledger()
        self.router = Router({node.id: node for node in self.nodes}, self.ledger, rules)

    def choose(self, request: Request, now: float) -> int:
        """The product's decision."""
        self._refresh(now)
        decision = self.router.route(self._ask(request, now))
        if not isinstance(decision, Decision):
            raise TypeError(f"no node: {decision.reason}")
        request.memo = decision
        return self._index[decision.node]

    def answered(self, request: Request, _: float) -> None:
        """Its prompt is computed."""
        decision = _decided(request)
        self.router.answered(decision)
        self.router.measured(
            decision, uncached=request.uncached(), seconds=request.first_at - request.arrived_at
        )

    def ended(self, request: Request, now: float) -> None:
        """Give its slot back; note what lies where, and bind the conversation."""
        decision = _decided(request)
        self.router.release(decision, was_answered=request.first_at >= 0)
        if request.ended_at < 0 or request.is_broken:
            return
        prompt = request.prompt
        placed = [(prompt.links[-1], prompt.tokens)]
        if prompt.answered:
            tokens = prompt.tokens + request.output_tokens
            placed.insert(0, (prompt.answered, tokens))
            if decision.route != "spill":
                bound = Bound(node=decision.node, prefix=prompt.answered, tokens=tokens, at=now)
                self._bindings[request.conversation] = bound
        elif request.kind == "background" and request.output_tokens == 1:
            self._bindings[request.conversation] = Bound(
                node=decision.node, prefix=prompt.links[-1], tokens=prompt.tokens, at=now
            )
        self.router.note(decision, placed, now)

    def lost(self, node: int) -> None:
        """A node is away."""
        self.nodes[node].is_healthy = False

    def back(self, node: int) -> None:
        """A node is there again; nothing tells the gateway that its cache is empty."""
        self.nodes[node].is_healthy = True

    def _refresh(self, now: float) -> None:
        for index, node in enumerate(self.nodes):
            seen = self._sight.seen(index, now)
            if seen.poll != self._polls[index]:
                self._polls[index] = seen.poll
                node.waiting, node.kv_usage = seen.waiting, seen.kv_usage

    def _ask(self, request: Request, now: float) -> Ask:
        links, prompt = request.prompt.links, request.prompt
        bound = self._bindings.get(request.conversation) if request.conversation >= 0 else None
        is_known = bound is not None and bound.prefix in links
        kept = self.router.kept(bound.node, bound.tokens, bound.at, now) if bound and is_known else 0
        if bound is not None and kept:
            held = self.router.held(links[-_RECENT:], now) | {bound.node: kept}
        else:
            held = self.router.held(links, now)
        key = b"%d" % request.conversation if request.conversation >= 0 else b"".join(links[:2][-1:])
        return Ask(
            model=_MODEL,
            key=key,
            prompt_tokens=prompt.tokens,
            expected={
                node: expected_tokens(tokens, prompt.tokens, self.router.node(node).block_size)
                for node, tokens in held.items()
            },
            bound_to=bound.node if bound is not None else None,
            excluded=[self.nodes[index].id for index in request.excluded],
        )


def ours(rules: RoutingRules, sight: Sight, replicas: int) -> Sequence[Policy]:
    """So many replicas with one set of bindings."""
    bindings: Bindings = {}
    return [Ours(sight, bindings, rules) for _ in range(replicas)]


def _node(index: int, sight: Sight) -> Node:
    spec = NodeSpec(engine="vllm", url=f"http://node-{index}")
    block = sight.nodes[index].card.block
    name = f"node-{index}"
    return Node(spec=spec, id=name, is_healthy=True, models=frozenset({_MODEL}), block_size=block)


def _decided(request: Request) -> Decision:
    assert isinstance(request.memo, Decision)
    return request.memo
