"""A proposal for the product's choice, to be measured beside it: one price for everything, in seconds.

    seconds = wait + (1 + crowding) * uncached / rate + running * decode_s + 0.15 * k / (1 - k)
"""

from collections import deque
from collections.abc import Sequence

import msgspec

from bench.fleet.policy import Own, Policy, Sight
from bench.fleet.prompt import Request
from gateway.routing.ledger import Ledger, Placement
from gateway.routing.prefix import expected_tokens
from gateway.routing.rendezvous import score


class Knobs(msgspec.Struct, frozen=True):
    learns_horizon: bool = True
    crowding: float = 1.0
    decode_s: float = 0.002
    tolerance: float = 0.1
    kv: float = 0.0
    heads: bool = True
    min_match: int = 0
    gap_s: float = 200.0
    fixed_crowding: bool = True
    home_bias: float = 0.0
    true_actual: bool = True
    events: bool = True
    homes: bool = True
    live: bool = True
    pooled: bool = True
    queue: float = 1.0
    hol: bool = True
    early: bool = True


class _State:
    __slots__ = ("foreign", "horizon", "order", "samples", "pending", "polls", "queue", "rate", "running", "since", "usage")

    def __init__(self) -> None:
        self.queue: deque[int] = deque()
        self.pending = 0
        self.samples = 0
        self.order = {}
        self.since = 0.0
        self.foreign = 0
        self.running = 0
        self.usage = 0.0
        self.rate = 2000.0
        self.horizon = 1800.0
        self.polls = -1


class Memo(msgspec.Struct):
    uncached: int
    expected: int
    age: float
    clean: bool
    link: bytes


class Proposed(Own):
    def __init__(self, sight: Sight, replica: int, bindings: dict, knobs: Knobs, replicas: int) -> None:
        super().__init__(sight, replica)
        self.k = knobs
        self.bindings = bindings
        self.ledger = Ledger()
        self.state = [_State() for _ in range(self.count)]
        self.names = [f"node-{i}" for i in range(self.count)]
        self.index = {n: i for i, n in enumerate(self.names)}
        self.mean = 500.0
        self.block = sight.nodes[0].card.block
        self.moves = 0
        self.live: dict = {}
        self.fleet_rate = 2000.0
        self.fleet_n = 0

    def held(self, request: Request, now: float) -> dict[int, tuple[int, float]]:
        """node -> tokens, age"""
        found: dict[int, tuple[int, float]] = {}
        prompt = request.prompt
        links = prompt.links
        bound = self.bindings.get(request.conversation) if request.conversation >= 0 else None
        if bound is not None and bound[1] in links[-3:]:
            found[bound[0]] = (bound[2], now - bound[3])
            links = links[-6:]
        for link in reversed(links):
            for p in self.ledger._placements.get(link, ()):
                j = self.index[p.node]
                age = now - p.at
                if age <= self.state[j].horizon and (j not in found):
                    found[j] = (p.tokens, age)
        if self.k.live:
            for link, tokens in ((links[-1], prompt.tokens), *prompt.heads):
                for j in self.live.get(link, ()):
                    if found.get(j, (0, 0.0))[0] < tokens:
                        found[j] = (tokens, 0.0)
        if self.k.heads:
            for link, tokens in prompt.heads:
                for p in self.ledger._placements.get(link, ()):
                    j = self.index[p.node]
                    if j not in found and now - p.at <= self.state[j].horizon:
                        found[j] = (tokens, now - p.at)
        if self.k.homes and request.conversation < 0:
            for link, tokens in prompt.heads:
                if tokens >= 1024 and not any(t >= tokens for t, _ in found.values()):
                    found[self.home(link)] = (tokens, 0.0)
            if prompt.before and not any(t >= prompt.before // 2 for t, _ in found.values()):
                found[self.home(b"".join(links[:2][-1:]))] = (prompt.before, 0.0)
        return found

    def home(self, key: bytes) -> int:
        return max((j for j in self.all if self.up[j]), key=lambda j: score(key, self.names[j], 1.0))

    def choose(self, request: Request, now: float) -> int:
        self.refresh(now)
        held = self.held(request, now)
        P = request.prompt.tokens
        k = self.k
        best = None
        costs = []
        for j in self.able(request):
            s = self.state[j]
            tokens, age = held.get(j, (0, 0.0))
            if age > s.horizon or tokens < k.min_match:
                tokens = 0
            expected = expected_tokens(tokens, P, self.block)
            un = P - expected
            wait = 0.0
            if s.queue:
                r = self.rate(s)
                wait = max((s.pending - s.queue[0]) / r, s.pending / r - (now - s.since))
            wait += s.foreign * self.mean / self.rate(s)
            if k.hol and s.order:
                at, head = next(iter(s.order.values()))
                wait = max(wait, now - at - head / self.rate(s))
            crowd = k.crowding if k.fixed_crowding else k.crowding * 2.718 ** (-s.horizon / k.gap_s)
            u = min(s.usage, .99)
            rate = self.rate(s)
            cost = wait + (1 + crowd + k.queue * (len(s.queue) + s.foreign)) * un / rate + max(s.running, self.running[j]) * k.decode_s + k.kv * u / (1 - u)
            costs.append((cost, j, expected, un, wait))
        low = min(costs)[0]
        key = b"%d" % request.conversation if request.conversation >= 0 else b"".join(request.prompt.links[:2][-1:])
        near = [c for c in costs if c[0] <= low + k.tolerance]
        c = near[0] if len(near) == 1 else max(near, key=lambda c: score(key, self.names[c[1]], 1.0))
        _, j, expected, un, wait = c
        s = self.state[j]
        tokens, age = held.get(j, (0, 0.0))
        if not s.queue:
            s.since = now
        request.memo = Memo(un, tokens, age, clean=not s.queue and not s.foreign, link=request.prompt.links[-1])
        if k.early:
            p = request.prompt
            self.ledger.note(p.links[-1], Placement(node=self.names[j], tokens=p.tokens, at=now))
            if k.heads:
                for link, t in p.heads:
                    self.ledger.note(link, Placement(node=self.names[j], tokens=t, at=now))
        s.order[id(request)] = (now, un)
        if k.live:
            p = request.prompt
            for link in (p.links[-1], *(h for h, _ in p.heads)):
                at = self.live.setdefault(link, {})
                at[j] = at.get(j, 0) + 1
        s.queue.append(un)
        s.pending += un
        return self.send(j)

    def rate(self, s) -> float:
        if not self.k.pooled:
            return s.rate
        return (s.samples * s.rate + 10 * self.fleet_rate) / (s.samples + 10)

    def refresh(self, now: float) -> None:
        for j, s in enumerate(self.state):
            seen = self.sight.seen(j, now)
            if seen.poll != s.polls:
                s.polls = seen.poll
                s.foreign = max(0, seen.waiting - len(s.queue))
                s.running = seen.running
                s.usage = seen.kv_usage
                if self.k.events:
                    s.horizon = min(1800.0, now - self.sight.nodes[j].cache.evicted_until)

    def _leave(self, request: Request, now: float) -> None:
        s = self.state[request.node]
        m = request.memo
        s.queue.remove(m.uncached)
        del s.order[id(request)]
        s.pending -= m.uncached
        s.since = now

    def answered(self, request: Request, now: float) -> None:
        self._leave(request, now)
        m, s = request.memo, self.state[request.node]
        # actual usage is known at the end in truth; here at the first byte
        ttft = request.first_at - request.arrived_at
        un = request.uncached() if self.k.true_actual else m.uncached
        self.mean += .05 * (un - self.mean)
        if un >= 256 and ttft > 0:
            rate = un / ttft
            if m.clean or rate > s.rate:
                s.rate += max(.1, 1 / (s.samples + 1)) * (rate - s.rate)
                s.samples += 1
                self.fleet_rate += max(.02, 1 / (self.fleet_n + 1)) * (rate - self.fleet_rate)
                self.fleet_n += 1
        if self.k.learns_horizon and not self.k.events and m.expected > 2000 and m.age > 0:
            got = request.cached_tokens
            if got < .5 * m.expected:
                if m.age < s.horizon:
                    s.horizon += .2 * (m.age - s.horizon)
            elif m.age > s.horizon * .5:
                s.horizon += .1 * (max(m.age, s.horizon) * 1.1 - s.horizon)

    def ended(self, request: Request, now: float) -> None:
        super().ended(request, now)
        if self.k.live:
            p = request.prompt
            for link in (p.links[-1] if not request.memo.link else request.memo.link, *(h for h, _ in p.heads)):
                at = self.live[link]
                at[request.node] -= 1
                if not at[request.node]:
                    del at[request.node]
                    if not at:
                        del self.live[link]
        if request.first_at < 0:
            if request.memo is not None and request.excluded and request.memo.uncached in self.state[request.node].queue:
                self._leave(request, now)
            return
        if request.is_broken:
            return
        name = self.names[request.node]
        p = request.prompt
        if p.answered:
            t = p.tokens + request.output_tokens
            self.ledger.note(p.answered, Placement(node=name, tokens=t, at=now))
            if request.conversation >= 0:
                old = self.bindings.get(request.conversation)
                if old and old[0] != request.node: self.moves += 1
                self.bindings[request.conversation] = (request.node, p.answered, t, now)
        elif request.kind == "background" and request.output_tokens == 1:
            self.bindings[request.conversation] = (request.node, p.links[-1], p.tokens, now)
        self.ledger.note(p.links[-1], Placement(node=name, tokens=p.tokens, at=now))
        if self.k.heads:
            for link, tokens in p.heads:
                self.ledger.note(link, Placement(node=name, tokens=tokens, at=now))

    def lost(self, node: int) -> None:
        super().lost(node)
        self.state[node] = _State()


def proposed(knobs: Knobs, sight: Sight, replicas: int) -> Sequence[Policy]:
    b: dict = {}
    return [Proposed(sight, i, b, knobs, replicas) for i in range(replicas)]
