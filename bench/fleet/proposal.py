"""A choice for the product to adopt, measured here beside the one it has: one price, in everybody's seconds.

    price = wait + (1 + full + waiting) * uncached / rate + running_s * answer * running
    wait  = max(tokens sent there before it / rate, how long the oldest request there has had no byte)

`wait` is what this request waits for others. Uncached tokens delay it, evict as much from a full node
(`full`: 1) and delay all that wait there (`waiting`), so affinity grows stronger when the whole fleet is busy
and gives way when one node is. The lowest price wins; the bound node also where it costs three tenths of a
cold prefill more, others within a twentieth by rendezvous. The binding goes along. Tokens that a node should
have count by the odds that they are still there. Every part can be switched off, to see what it is worth.
"""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from bench.fleet.marks import Marks
from bench.fleet.policy import Own, Policy, Sight
from bench.fleet.prompt import Prompt, Request
from gateway.routing.prefix import expected_tokens
from gateway.routing.rendezvous import score

_FIRST_RATE = 2000.0
_RATE_TOKENS = 256
_HORIZON_TOKENS = 1024
_HEAD_TOKENS = 256
_LONGEST_S = 1800.0
_RECENT = 6
_LATELY_S = 300.0
_FADING = 3
"""How sharply the odds fall around the horizon."""


class Pricing(msgspec.Struct, frozen=True):
    """The proposal's rules; the defaults are the proposal."""

    crowding: float = 1.0
    waiting_weight: float = 1.0
    running_s: float = 1e-5
    """What a request costs one that decodes beside it, per token of its answer."""
    tie: float = 0.05
    """Prices that differ by less count as equal; a share of what the whole prompt would cost."""
    home_tie: float = 0.3
    """The same for the bound node."""
    knows_heads: bool = True
    """Shared beginnings (persona, system prompt) are in the ledger too, not whole prompts only."""
    knows_running: bool = True
    """What is on its way counts as there; else a prefix is known when its request has ended."""
    minds_oldest: bool = True
    """The wait is at least that of the oldest request without a byte."""
    horizon: Literal["events", "learned", "fixed"] = "learned"
    """How a node's retention is known: from KV events, from cached tokens expected and got, or not at all."""
    pools_rates: bool = True
    """A node of which little is known is taken to be as fast as the others."""
    presumes_home: bool = True
    """With several replicas, what no ledger knows is presumed where rendezvous puts it: so they agree on
    stateless prompts."""
    bound: float = 1.25
    """A node that got so many times the mean of the last minutes gets nothing for a shared beginning alone;
    0: no bound."""
    moves_binding: bool = True
    """A turn that goes elsewhere takes its conversation along."""


class Home(msgspec.Struct, frozen=True, gc=False):
    """A binding."""

    node: int
    prefix: bytes
    tokens: int
    at: float


class _Sent(msgspec.Struct, gc=False):
    """What was thought of a request when it was sent."""

    uncached: int
    expected: int
    used_at: float
    was_alone: bool
    stays: bool
    link: bytes


class _Lane:
    """What one replica knows of a node."""

    __slots__ = (
        "foreign",
        "horizon",
        "lately",
        "lately_noted",
        "moved_at",
        "pending",
        "poll",
        "rate",
        "running",
        "samples",
        "unanswered",
    )

    def __init__(self) -> None:
        self.unanswered: dict[int, tuple[float, int]] = {}  # request: when sent, uncached; the oldest first
        self.pending = 0
        self.moved_at = 0.0
        self.foreign = 0
        self.running = 0
        self.rate = _FIRST_RATE
        self.samples = 0
        self.horizon = _LONGEST_S
        self.poll = -1
        self.lately = 0.0
        self.lately_noted = 0.0

    def lately_at(self, now: float) -> float:
        """Tokens of prompts sent there, fading over five minutes."""
        return self.lately * math.exp((self.lately_noted - now) / _LATELY_S)

    def wait(self, now: float, rate: float, *, minds_oldest: bool) -> float:
        """Seconds until what was sent before has its first byte."""
        if not self.unanswered:
            return 0.0
        at, first = next(iter(self.unanswered.values()))
        wait = max((self.pending - first) / rate, self.pending / rate - (now - self.moved_at))
        return max(wait, now - at - first / rate) if minds_oldest else wait


class Proposed:
    """One replica."""

    def __init__(self, sight: Sight, replica: int, homes: dict[int, Home], rules: Pricing) -> None:
        self._sight = sight
        self._own = Own(sight, replica)
        self._rules = rules
        self._homes = homes
        self.marks = Marks()
        self._lanes = [_Lane() for _ in sight.nodes]
        self._names = [f"node-{node}" for node in range(len(sight.nodes))]
        self._block = sight.nodes[0].card.block
        self._mean_uncached = 500.0
        self._decode_s = 100 * rules.running_s
        self._fleet_rate = _FIRST_RATE
        self._fleet_samples = 0

    def choose(self, request: Request, now: float) -> int:
        """The lowest price."""
        self._refresh(now)
        prompt, home = request.prompt, self._homes.get(request.conversation)
        held = self._held(request, home, now)
        prices: list[tuple[float, int]] = []
        for node in self._within_bound(request, held, now):
            expected = expected_tokens(held[node][0], prompt.tokens, self._block) if node in held else 0
            prices.append((self._price(node, prompt.tokens - expected, now), node))
        node = self._pick(request, home, prices)
        self._note_sent(request, node, held.get(node, (0, 0.0)), home, now)
        return self._own.send(node)

    def answered(self, request: Request, now: float) -> None:
        """Its prefill is over."""
        self._leave(request, now)

    def ended(self, request: Request, now: float) -> None:
        """Learn from the engine's usage; note what lies where."""
        self._own.ended(request)
        sent, prompt, node = _sent(request), request.prompt, request.node
        for link in (sent.link, *(link for link, _ in self._heads(prompt))):
            if self._rules.knows_running:
                self.marks.done(link, node, now)
        if request.first_at < 0:
            self._leave(request, now)
            return
        self._learn(request, sent)
        if request.is_broken:
            return
        last = (sent.link, prompt.tokens)
        self.marks.note(last[0], node, last[1], now)
        for link, tokens in self._heads(prompt):
            self.marks.note(link, node, tokens, now)
        if prompt.answered:
            last = (prompt.answered, prompt.tokens + request.output_tokens)
            self.marks.note(last[0], node, last[1], now)
        binds = prompt.answered if request.kind == "turn" else request.output_tokens == 1
        if request.conversation >= 0 and binds and (sent.stays or self._rules.moves_binding):
            self._homes[request.conversation] = Home(node=node, prefix=last[0], tokens=last[1], at=now)

    def lost(self, node: int) -> None:
        """A node is away, and its cache with it."""
        self._own.up[node] = False
        self.marks.forget(node)

    def back(self, node: int) -> None:
        """A node is there again."""
        self._own.up[node] = True

    def _within_bound(self, request: Request, held: dict[int, tuple[int, float]], now: float) -> list[int]:
        """The nodes that may get it: those that hold some of its own all, others unless they got too much."""
        able = self._own.able(request)
        if not self._rules.bound:
            return able
        lately = [self._lanes[node].lately_at(now) for node in able]
        limit = self._rules.bound * sum(lately) / len(able)
        shared = max((tokens for _, tokens in request.prompt.heads), default=0)
        pairs = zip(able, lately, strict=True)
        return [node for node, got in pairs if got <= limit or held.get(node, (0, 0.0))[0] > shared]

    def _pick(self, request: Request, home: Home | None, prices: Sequence[tuple[float, int]]) -> int:
        low = min(prices)[0]
        cold = request.prompt.tokens / self._fleet_rate
        at_home = low + self._rules.home_tie * cold
        if home is not None and any(node == home.node and price <= at_home for price, node in prices):
            return home.node
        # A dead node's conversations are many: the wider band spreads them instead of filling one lull.
        is_orphan = home is not None and not self._own.up[home.node]
        tie = self._rules.home_tie if is_orphan else self._rules.tie
        near = [node for price, node in prices if price <= low + tie * cold]
        return near[0] if len(near) == 1 else self._draw(_key(request), near)

    def _price(self, node: int, uncached: int, now: float) -> float:
        rules, lane = self._rules, self._lanes[node]
        rate = self._rate(lane)
        wait = lane.wait(now, rate, minds_oldest=rules.minds_oldest)
        wait += lane.foreign * self._mean_uncached / rate
        waiting = len(lane.unanswered) + lane.foreign
        full = rules.crowding if lane.horizon < _LONGEST_S else 0.0
        weight = 1 + full + rules.waiting_weight * waiting
        return wait + weight * uncached / rate + self._decode_s * max(lane.running, self._own.running[node])

    def _rate(self, lane: _Lane) -> float:
        if not self._rules.pools_rates:
            return lane.rate
        return (lane.samples * lane.rate + 10 * self._fleet_rate) / (lane.samples + 10)

    def _held(self, request: Request, home: Home | None, now: float) -> dict[int, tuple[int, float]]:
        """Per node: tokens of the prompt's prefix that it should have, and when they were used last."""
        prompt, links = request.prompt, request.prompt.links
        found: dict[int, tuple[int, float]] = {}
        if home is not None and home.prefix in links[-3:]:
            self._find(found, home.node, home.tokens, home.at, now)
            links = links[-_RECENT:]
        for link in reversed(links):
            for node, tokens, at in self.marks.of(link):
                self._find(found, node, tokens, at, now)
        for link, tokens in self._heads(prompt):
            for node, _, at in self.marks.of(link):
                self._find(found, node, tokens, at, now)
        if self._rules.presumes_home and request.conversation < 0:
            self._presume(found, request)
        return found

    def _find(
        self, found: dict[int, tuple[int, float]], node: int, tokens: int, at: float, now: float
    ) -> None:
        lane = self._lanes[node]
        age = max(0.0, now - at)
        if self._rules.horizon == "learned":
            # What counts is whether it is there when its turn comes.
            age += lane.wait(now, self._rate(lane), minds_oldest=True)
            tokens = int(tokens / (1 + min(10.0, age / lane.horizon) ** _FADING))
        elif age > lane.horizon:
            return
        if tokens > found.get(node, (0, 0.0))[0]:
            found[node] = (tokens, min(at, now))

    def _presume(self, found: dict[int, tuple[int, float]], request: Request) -> None:
        prompt = request.prompt
        longest = max((tokens for tokens, _ in found.values()), default=0)
        for link, tokens in self._heads(prompt):
            if tokens > longest:
                found[self._draw(link, self._own.able(request))] = (tokens, float("inf"))
        if prompt.before // 2 > longest:
            found[self._draw(_key(request), self._own.able(request))] = (prompt.before, float("inf"))

    def _heads(self, prompt: Prompt) -> Sequence[tuple[bytes, int]]:
        """Those that are long enough to attract."""
        if not self._rules.knows_heads:
            return ()
        return [head for head in prompt.heads if head[1] >= _HEAD_TOKENS]

    def _draw(self, key: bytes, nodes: Sequence[int]) -> int:
        return max(nodes, key=lambda node: score(key, self._names[node], 1.0))

    def _note_sent(
        self, request: Request, node: int, held: tuple[int, float], home: Home | None, now: float
    ) -> None:
        lane, prompt = self._lanes[node], request.prompt
        uncached = prompt.tokens - expected_tokens(held[0], prompt.tokens, self._block)
        request.memo = _Sent(
            uncached=uncached,
            expected=held[0],
            used_at=held[1],
            was_alone=not lane.unanswered and not lane.foreign,
            stays=home is None or home.node == node or not self._own.up[home.node],
            link=prompt.links[-1],
        )
        if not lane.unanswered:
            lane.moved_at = now
        lane.unanswered[id(request)] = (now, uncached)
        lane.pending += uncached
        lane.lately = lane.lately_at(now) + prompt.tokens
        lane.lately_noted = now
        if self._rules.knows_running:
            for link, tokens in ((prompt.links[-1], prompt.tokens), *self._heads(prompt)):
                self.marks.sent(link, node, tokens, now)

    def _leave(self, request: Request, now: float) -> None:
        lane = self._lanes[request.node]
        _, uncached = lane.unanswered.pop(id(request), (now, 0))
        lane.pending -= uncached
        lane.moved_at = now

    def _learn(self, request: Request, sent: _Sent) -> None:
        lane, uncached = self._lanes[request.node], request.uncached()
        self._mean_uncached += 0.05 * (uncached - self._mean_uncached)
        self._decode_s += 0.02 * (self._rules.running_s * request.output_tokens - self._decode_s)
        seconds = request.first_at - request.arrived_at
        rate = uncached / seconds
        # Queueing only makes a rate look lower, so a higher one is always news.
        if uncached >= _RATE_TOKENS and (sent.was_alone or rate > lane.rate):
            lane.samples += 1
            lane.rate += max(0.1, 1 / lane.samples) * (rate - lane.rate)
            self._fleet_samples += 1
            self._fleet_rate += max(0.02, 1 / self._fleet_samples) * (rate - self._fleet_rate)
        if self._rules.horizon == "learned" and sent.expected >= _HORIZON_TOKENS:
            self._learn_horizon(
                request.first_at - sent.used_at, was_there=request.cached_tokens >= sent.expected // 2
            )

    def _learn_horizon(self, age: float, *, was_there: bool) -> None:
        """One for all nodes: alike caches under even load lose their blocks at the same age."""
        horizon = self._lanes[0].horizon
        if not was_there and age < horizon:
            horizon = max(age, 0.8 * horizon)
        elif was_there and age > 0.5 * horizon:
            horizon = min(_LONGEST_S, 1.05 * max(age, horizon))
        for lane in self._lanes:
            lane.horizon = horizon

    def _refresh(self, now: float) -> None:
        for node, lane in enumerate(self._lanes):
            seen = self._sight.seen(node, now)
            if seen.poll == lane.poll:
                continue
            lane.poll = seen.poll
            lane.foreign = max(0, seen.waiting - len(lane.unanswered))
            lane.running = seen.running
            if self._rules.horizon == "events":
                lane.horizon = min(_LONGEST_S, now - self._sight.nodes[node].cache.evicted_until)


def proposed(rules: Pricing, sight: Sight, replicas: int) -> Sequence[Policy]:
    """So many replicas with one set of bindings."""
    homes: dict[int, Home] = {}
    if replicas == 1:
        rules = msgspec.structs.replace(rules, presumes_home=False)
    return [Proposed(sight, replica, homes, rules) for replica in range(replicas)]


def _key(request: Request) -> bytes:
    if request.conversation >= 0:
        return b"%d" % request.conversation
    return b"".join(request.prompt.links[:2][-1:])


def _sent(request: Request) -> _Sent:
    assert isinstance(request.memo, _Sent)
    return request.memo
