"""One inference server: a FIFO queue, one prefill at a time in chunks, and a batch that decodes beside it.

Between two events all rates are constant, so a node needs three events a request and no step by step
simulation: prefill proceeds by work, decoding by a common count of tokens. A prompt is looked up in the cache
when its prefill begins, so what was queued before it is found there, as in an engine's scheduler.
"""

from collections import deque
from heapq import heappop, heappush

import msgspec

from bench.fleet.cache import ExtentCache
from bench.fleet.card import Card
from bench.fleet.prompt import Prompt, Request


class Gauges(msgspec.Struct, frozen=True, gc=False):
    """What a node's metrics say, and at which poll."""

    poll: int
    waiting: int
    running: int
    kv_usage: float


class SimNode:
    """The state of one node; the simulation calls `step` at the times that `next_at` names."""

    def __init__(self, index: int, card: Card, *, kv_tokens: int = 0, poll_s: float = 2.0) -> None:
        self.index = index
        self.card = card
        self.cache = ExtentCache((kv_tokens or card.kv_tokens) // card.block)
        self.is_alive = True
        self.version = 0
        """Counts plans, so that events of an older one are known to be void."""
        self.waiting: deque[Request] = deque()
        self.prefilling: Request | None = None
        self.queued_tokens = 0
        """Uncached tokens of what waits, as estimated when it came."""
        self.load_area = 0.0
        """Requests on it, integrated over time."""
        self.prefilled_tokens = 0
        self._at = 0.0
        self._left = 0.0  # work of the prefill under way
        self._count = 0.0  # tokens that everything decoding has got since the start
        self._decoding: list[tuple[float, int, Request]] = []
        self._entered = 0
        self._context = 0.0
        self._step_s = card.weights_s
        self._prefill_rate = 0.0
        self._decode_rate = 0.0
        self._fires_prefill = False
        self._poll_s = poll_s
        self._phase = poll_s * (0.618 * index % 1.0)
        self._tick = -1
        self._polled = Gauges(poll=-1, waiting=0, running=0, kv_usage=0.0)

    def load(self) -> int:
        """Requests on it now."""
        return len(self.waiting) + len(self._decoding) + (self.prefilling is not None)

    def gauges(self) -> Gauges:
        """Its metrics now."""
        running = len(self._decoding) + (self.prefilling is not None)
        usage = self.cache.pinned_blocks / self.cache.capacity
        return Gauges(poll=self._tick, waiting=len(self.waiting), running=running, kv_usage=usage)

    def seen(self, now: float) -> Gauges:
        """Its metrics at the last poll."""
        self._poll(now)
        return self._polled

    def cached_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt that it would find in its cache now; at least one is always computed."""
        block = self.card.block
        return min(self.cache.match(prompt.extents), (prompt.tokens - 1) // block) * block

    def wait(self, now: float) -> float:
        """Seconds until a new request's prefill begins: the work before it, or as long as others wait."""
        if self.prefilling is None and not self.waiting:
            return 0.0
        per_token = self.card.prefill_s + self._decode_step() / self.card.chunk
        work = (self._left + self.queued_tokens) * per_token
        is_blocked = self.prefilling is None
        return max(work, now - self.waiting[0].arrived_at) if is_blocked else work

    def seconds_for(self, cached: int, uncached: int) -> float:
        """Seconds that a prompt's own prefill would take."""
        per_token = self.card.prefill_s + self._decode_step() / self.card.chunk
        return self.card.prefill_work(cached, uncached) * per_token + self._decode_step()

    def enqueue(self, request: Request, now: float) -> None:
        """A request arrives."""
        self._advance(now)
        request.node = self.index
        request.estimate = request.prompt.tokens - self.cached_tokens(request.prompt)
        self.queued_tokens += request.estimate
        self.waiting.append(request)
        if self.prefilling is None:
            self._admit()
        self._plan()

    def next_at(self) -> float | None:
        """When its state changes next, if nothing arrives."""
        at = None
        self._fires_prefill = False
        if self._decoding:
            at = self._at + max(0.0, self._decoding[0][0] - self._count) / self._decode_rate
        if self.prefilling is not None:
            done = self._at + self._left / self._prefill_rate
            if at is None or done <= at:
                at, self._fires_prefill = done, True
        return at

    def step(self, now: float) -> tuple[Request | None, list[Request]]:
        """Do what is due: the request that got its first token, and those that are complete."""
        fires_prefill = self._fires_prefill
        self._advance(now)
        first: Request | None = None
        ended: list[Request] = []
        if fires_prefill:
            first = self._end_prefill(now, ended)
        else:
            self._count = max(self._count, self._decoding[0][0])
        while self._decoding and self._decoding[0][0] <= self._count:
            self._complete(heappop(self._decoding)[2], now, ended)
        if self.prefilling is None:
            self._admit()
        self._plan()
        return first, ended

    def settle(self, now: float) -> None:
        """Bring its counts up to date."""
        self._advance(now)

    def kill(self, now: float) -> list[Request]:
        """Die with everything: the requests that were on it."""
        self._advance(now)
        lost = [request for _, _, request in self._decoding]
        lost += [self.prefilling] if self.prefilling is not None else []
        lost += self.waiting
        self._decoding.clear()
        self.waiting.clear()
        self.prefilling = None
        self.queued_tokens = 0
        self._context = 0.0
        self.cache.clear()
        self.is_alive = False
        self._plan()
        return lost

    def _admit(self) -> None:
        """Begin the next prefill if the batch and the cache have room for it."""
        if not self.waiting or len(self._decoding) >= self.card.max_running:
            return
        request, block = self.waiting[0], self.card.block
        prompt = request.prompt
        whole = prompt.blocks()
        reserve = -(-(prompt.tokens + request.output_tokens) // block) - whole
        hit = self.cache.acquire(prompt.extents, reserve)
        if hit is None:
            if self.prefilling is None and not self._decoding:
                raise ValueError(f"a prompt of {prompt.tokens} tokens does not fit into an idle node's cache")
            return
        self.waiting.popleft()
        self.queued_tokens -= request.estimate
        request.held_blocks = reserve
        request.cached_tokens = min(hit, (prompt.tokens - 1) // block) * block
        self.prefilled_tokens += request.uncached()
        self._left = self.card.prefill_work(request.cached_tokens, request.uncached())
        self.prefilling = request

    def _end_prefill(self, now: float, ended: list[Request]) -> Request:
        request = self.prefilling
        assert request is not None
        self.prefilling, self._left = None, 0.0
        request.first_at = now + self._decode_step()
        if request.output_tokens <= 1:
            self._complete(request, now, ended)
        else:
            self._entered += 1
            due = self._count + request.output_tokens - 1
            heappush(self._decoding, (due, self._entered, request))
            self._context += request.prompt.tokens + request.output_tokens / 2
        return request

    def _complete(self, request: Request, now: float, ended: list[Request]) -> None:
        prompt, block = request.prompt, self.card.block
        if request.output_tokens > 1:
            self._context -= prompt.tokens + request.output_tokens / 2
        kept = (prompt.tokens + request.output_tokens - 1) // block - prompt.blocks()
        self.cache.release(prompt.extents, request.held_blocks, now, answer=(prompt.answer, max(0, kept)))
        request.ended_at = max(now, request.first_at)
        ended.append(request)

    def _decode_step(self) -> float:
        return self.card.step_s(len(self._decoding), self._context)

    def _advance(self, now: float) -> None:
        self._poll(now)
        passed = now - self._at
        if passed > 0:
            self.load_area += passed * self.load()
            self._left = max(0.0, self._left - passed * self._prefill_rate)
            self._count += passed * self._decode_rate
            self._at = now

    def _plan(self) -> None:
        """The rates until the next event."""
        self.version += 1
        step = self._decode_step()
        if self.prefilling is not None:
            step += self.card.chunk * self.card.prefill_s
            self._prefill_rate = self.card.chunk / step
        else:
            self._prefill_rate = 0.0
        self._decode_rate = 1.0 / step

    def _poll(self, now: float) -> None:
        """Remember the state at the poll before `now`; it has not changed since the last event."""
        tick = int((now + self._phase) / self._poll_s)
        if tick > self._tick:
            self._tick = tick
            self._polled = self.gauges()
