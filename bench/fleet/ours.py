"""This product's routing in the simulator: its own choice, ledger and router, fed as the gateway feeds them.

What `gateway.scoring` does with a prompt's bytes is done here with the simulated links: the binding says what
its node holds, the ledger what the others do, tokens are counted exactly. Replicas have ledgers and loads of
their own and share the bindings, as they share a Redis.
"""

from collections.abc import Sequence

import msgspec

from bench.fleet.policy import Policy, Sight
from bench.fleet.prompt import Prompt, Request
from gateway.routing.choice import Ask, RoutingRules
from gateway.routing.holdings import LONG_ENOUGH, Placed, Sought
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.router import Decision, Outcome, Router

_MODEL = "m"


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
        self._restarted: set[int] = set()
        self.ledger = Ledger()
        self.router = Router({node.id: node for node in self.nodes}, self.ledger, rules)

    def choose(self, request: Request, now: float) -> int:
        """The product's decision."""
        self._refresh(now)
        decision = self.router.route(self._ask(request, now), now)
        if not isinstance(decision, Decision):
            raise TypeError(f"no node: {decision.reason}")
        request.memo = decision
        return self._index[decision.node]

    def bound(self, conversation: int) -> Bound | None:
        """Where a conversation's KV was put last."""
        return self._bindings.get(conversation)

    def answered(self, request: Request, now: float) -> None:
        """Its prompt is computed."""
        self.router.answered(_decided(request), now)

    def ended(self, request: Request, now: float) -> None:
        """Give its slot back; note what lies where, and bind the conversation."""
        decision = _decided(request)
        self.router.release(decision, now, was_computed=request.first_at >= 0)
        if request.ended_at < 0 or request.is_broken:
            return
        prompt = request.prompt
        outcome = Outcome(
            prompt_tokens=prompt.tokens,
            completion_tokens=request.output_tokens,
            cached_tokens=request.cached_tokens,
            first_s=request.first_at - request.arrived_at,
        )
        self.router.learn(decision, outcome)
        placed = _places(prompt)
        if prompt.answered:
            tokens = prompt.tokens + request.output_tokens
            placed.insert(0, (prompt.answered, tokens))
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
        """A node is there again; its counters tell the next poll that it was restarted."""
        self.nodes[node].is_healthy = True
        self._restarted.add(node)

    def _refresh(self, now: float) -> None:
        while self._restarted:
            self.nodes[self._restarted.pop()].retention.emptied(now)
        for index, node in enumerate(self.nodes):
            seen = self._sight.seen(index, now)
            if seen.poll != self._polls[index]:
                self._polls[index] = seen.poll
                node.waiting, node.working, node.kv_usage = seen.waiting, seen.running, seen.kv_usage
                self.router.polled(node, now)

    def _ask(self, request: Request, now: float) -> Ask:
        prompt, bound, head = request.prompt, None, (b"", 0)
        key, home, settled = b"".join(prompt.links[:2][-1:]), None, prompt.before
        if request.conversation >= 0:
            bound, key, settled = self._bindings.get(request.conversation), b"%d" % request.conversation, 0
            if bound is not None and bound.prefix in prompt.links:
                home = Placed(node=bound.node, tokens=bound.tokens, at=bound.at)
        if prompt.heads:
            head = prompt.heads[0]
        presumes = key if request.conversation < 0 else b""
        sought = Sought(links=prompt.links, head=head, home=home, settled=settled, key=presumes)
        return Ask(
            model=_MODEL,
            key=key,
            prompt_tokens=prompt.tokens,
            held=self.router.held(sought, _MODEL, now),
            bound_to=bound.node if bound is not None else None,
            excluded=[self.nodes[index].id for index in request.excluded],
            shared=head[1],
            places=_places(prompt),
        )


def _places(prompt: Prompt) -> list[tuple[bytes, int]]:
    heads = [head for head in prompt.heads if head[1] >= LONG_ENOUGH]
    return [(prompt.links[-1], prompt.tokens), *heads]


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
