"""Choosing and reserving in one step, and learning from what came of it.

No await stands between reading the nodes and taking a slot, so two requests never see the same free slot.
"""

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from gateway.routing.choice import Ask, NoNode, Route, RoutingRules, choose, draw, unfit
from gateway.routing.holdings import Held, Holdings, Sought
from gateway.routing.horizon import Horizon
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node
from gateway.routing.pace import Pace
from gateway.routing.prefix import expected_tokens
from gateway.routing.retention import Gates, odds
from gateway.routing.truth import Answer

_TELLING_TOKENS = 1024
"""Shorter prefixes that are missed say more about a template or a block's size than about eviction."""
_LEAST_PROMISED = 64
_MISSES = 64
"""Kept of a node between two polls."""


class Decision(msgspec.Struct, frozen=True):
    """The node chosen and why, and what was believed when it was."""

    number: int
    node: str
    route: Route
    expected: int
    """Tokens that it should serve from cache: what clients and operators are told."""
    uncached: int
    """Tokens that it will have to compute, what it should have weighed by its odds."""
    at: float
    """When it was made, in steady seconds."""
    was_alone: bool
    """Whether nothing waited there then."""
    held: Held | None = None
    places: Sequence[tuple[bytes, int]] = ()


class Outcome(msgspec.Struct, frozen=True):
    """What an engine counted of an answer."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    first_s: float = 0.0
    """Seconds to the first byte; 0: not seen."""


class Router:
    """The nodes and the ledger under one set of rules.

    `by_id` is the roster's own view: nodes come and go in it, as a rule when nothing runs on them. What is
    learned from an answer is learned only of a node that is still there.
    """

    def __init__(self, by_id: Mapping[str, Node], ledger: Ledger, rules: RoutingRules) -> None:
        self._by_id = by_id
        self._ledger = ledger
        self._rules = rules
        self._pace = Pace()
        self._horizons: dict[int | None, Horizon] = {}
        self._numbers = itertools.count()
        self._under_way: dict[int, Node] = {}
        """By the decision's number. Meanwhile a node may leave, and another one come under its name."""
        self._changed: set[str] = set()
        """Nodes whose prices are to be worked out anew."""

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

    def serves(self, model: str) -> bool:
        """Whether a node that may have requests serves it."""
        for node in self._by_id.values():  # asked of every request: a generator costs twice as much
            if model in node.models and node.is_healthy and not node.is_draining:
                return True
        return False

    def longest_known(self, links: Sequence[bytes]) -> tuple[int, int]:
        """How many of a prompt's links make the longest prefix that is known, and its tokens."""
        return self._ledger.longest(links)

    def held(self, sought: Sought, model: str, now: float) -> dict[str, Held]:
        """Per node, what it should still hold of a prompt."""
        self._settle(now)
        holdings = Holdings(self._by_id, self._gates, now)
        holdings.search(sought, self._ledger)
        if not sought.key:
            return holdings.found
        ask = Ask(model=model, key=sought.key, prompt_tokens=0)

        def home(key: bytes) -> str | None:
            able = self._possible(ask)
            return draw(key, able).id if able else None

        holdings.presume(sought, self._ledger, home)
        return holdings.found

    def could_go(self, ask: Ask) -> set[str]:
        """The nodes that could answer, now or when they have room."""
        return {node.id for node in self._possible(ask)}

    def route(self, ask: Ask, now: float) -> Decision | NoNode:
        """Choose a node and reserve a slot on it; `release` gives it back."""
        self._settle(now)
        choice = choose(ask, self._by_id.values(), self._rules, rate=self._pace.rate, now=now)
        if isinstance(choice, NoNode):
            return choice
        node, held = choice.node, ask.held.get(choice.node.id)
        decision = Decision(
            number=next(self._numbers),
            node=node.id,
            route=choice.route,
            expected=expected_tokens(held.expected, ask.prompt_tokens, node.block_size) if held else 0,
            uncached=choice.uncached,
            at=now,
            was_alone=node.lane.is_alone(),
            held=held,
            places=ask.places,
        )
        node.running += 1
        self._under_way[decision.number] = node
        node.lane.sent(decision.number, choice.uncached, now, tells=ask.tells)
        self._weigh(node, ask.prompt_tokens, now)
        self._changed.add(node.id)
        for link, tokens in ask.places:
            self._ledger.sent(link, node.id, tokens)
        return decision

    def answered(self, decision: Decision, now: float) -> None:
        """The first byte came: its prompt is computed."""
        if (node := self._under_way.get(decision.number)) is not None:
            node.lane.left(decision.number, now)
            self._changed.add(node.id)

    def release(self, decision: Decision, now: float, *, was_computed: bool) -> None:
        """The request is over, one way or the other. `was_computed`: its node did its prompt."""
        for link, _ in decision.places:
            self._ledger.done(link, decision.node, now, was_computed=was_computed)
        if (node := self._under_way.pop(decision.number, None)) is not None:
            node.running -= 1
            node.lane.left(decision.number, now)
            self._changed.add(node.id)

    def polled(self, node: Node, now: float) -> None:
        """A node told its load. What was missed on it meanwhile teaches now, unless it was restarted."""
        cleared_s = node.retention.knowledge(now).cleared_s
        for placed_at, age_s in node.missed:
            if now - placed_at < cleared_s:
                self._horizon(node).learned(age_s, was_there=False)
        node.missed.clear()
        node.lane.polled(node.waiting, node.working, now)
        node.lane.progressed(node.progress, now, is_running=node.running > 0)
        self._changed.add(node.id)

    def note(self, decision: Decision, places: Sequence[tuple[bytes, int]], now: float) -> None:
        """The node now holds these prefixes, with so many tokens each."""
        for link, tokens in places:
            self._ledger.note(link, decision.node, tokens, now)

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        """An answer was complete, and its engine told what it had cached of the prompt.

        By the engine's count, never by what was expected: where prefixes were evicted, a node would look slow
        and lose its turns.
        """
        node, cached = self._by_id.get(decision.node), outcome.cached_tokens
        if node is None or cached is None:
            return
        uncached, lane = outcome.prompt_tokens - cached, node.lane
        self._pace.learned_size(uncached, outcome.completion_tokens)
        lane.rate = self._pace.learned_rate(
            lane.rate, uncached, outcome.first_s, was_alone=decision.was_alone
        )
        if (held := decision.held) is not None and held.is_known:
            self._learn_truth(node, held, decision.at, outcome)

    def _learn_truth(self, node: Node, held: Held, asked_at: float, outcome: Outcome) -> None:
        cached, age_s = outcome.cached_tokens or 0, asked_at + outcome.first_s - held.at
        promised = expected_tokens(held.tokens, outcome.prompt_tokens, node.block_size)
        # By what would be found, not by what was hoped for: else a horizon that is too short stays so. A node
        # that finds nothing for other reasons says nothing of how long prefixes stay.
        if promised >= _TELLING_TOKENS and node.truth.reason in (None, "evicted"):
            if cached >= promised // 2:
                self._horizon(node).learned(max(0.0, age_s), was_there=True)
            elif len(node.missed) < _MISSES:
                # It may have been restarted, which says nothing of eviction: the next poll tells.
                node.missed.append((min(held.at, asked_at), max(0.0, age_s)))
        if held.is_promised and promised >= max(_LEAST_PROMISED, 2 * node.block_size):
            node.truth.told(Answer(expected=promised, cached=cached, age_s=age_s), node.block_size)

    def block_size(self, name: str) -> int:
        """Tokens per cache block of a node; 1 of one that is gone."""
        node = self._by_id.get(name)
        return node.block_size if node else 1

    def odds(self, name: str, age_s: float, now: float) -> float:
        """How likely a prefix that was last used so long ago is still on the node, 0..1; 0 if that left."""
        if (node := self._by_id.get(name)) is None:
            return 0.0
        return odds(age_s, node.retention.knowledge(now), self._gates(node))

    def horizon(self, now: float) -> tuple[float, bool]:
        """How many seconds nodes keep what nobody uses, their mean, and whether that was seen to end."""
        found: list[float] = []
        is_full = False
        for node in self._by_id.values():
            learned, told = self._horizon(node), node.retention.knowledge(now).horizon_s
            found.append(learned.seconds if told is None else min(told, learned.seconds))
            is_full = is_full or learned.is_full or told is not None
        return (sum(found) / len(found) if found else self._rules.retention_s), is_full

    def confirmed(self, name: str, placed_at: float, asked_at: float) -> None:
        """An answer asked for at `asked_at` found cached what was placed on the node at `placed_at`."""
        if (node := self._by_id.get(name)) is not None:
            node.retention.confirmed(placed_at, asked_at)

    def _possible(self, ask: Ask) -> list[Node]:
        return [node for node in self._by_id.values() if unfit(ask, node, self._rules) in (None, "full")]

    def _gates(self, node: Node) -> Gates:
        return self._horizon(node).gates

    def _horizon(self, node: Node) -> Horizon:
        """Nodes with caches of one size share it."""
        size = node.facts.kv_tokens
        if (horizon := self._horizons.get(size)) is None:
            horizon = self._horizons[size] = Horizon(self._rules.retention_s)
        return horizon

    def _settle(self, now: float) -> None:
        """Work out the prices of nodes to which something happened: once for all that did since the last."""
        while self._changed:
            if (node := self._by_id.get(self._changed.pop())) is not None:
                is_full = self._horizon(node).is_full
                node.lane.settle(self._pace, now, is_full=is_full, running=node.running)

    def _weigh(self, node: Node, tokens: int, now: float) -> None:
        weight, divisor = self._pace.scale(now)
        if divisor != 1.0:
            for one in self._by_id.values():
                one.lane.lately /= divisor
        node.lane.lately += tokens * weight
