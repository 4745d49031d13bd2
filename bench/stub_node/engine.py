"""The scheduler of a stub node: who runs, who waits, what a request costs in time, what stays in the cache.

The time model:

- requests start in order of arrival, at most `max_running` at once, and only when their blocks fit the cache;
- prefill is one resource of the node: uncached prompt tokens at `prefill_rate`, one prompt after the other,
  so the cache is looked up when a prompt's turn comes and a burst with a common prefix pays for it once;
- then each request decodes at `decode_rate` of its own, whatever the others do.

A request that ends early, for whatever reason, gives its blocks back at once; what it has computed stays
cached.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.stub_node.cache import BlockCache, Lease, chain
from bench.stub_node.kv_forms import Event
from bench.stub_node.refusal import Refusal, Refused
from bench.stub_node.spec import StubSpec
from bench.stub_node.tokens import Tokens

_TOKENS_BETWEEN_BREATHS = 32
"""An instant answer lets other tasks run after so many tokens, so that a disconnect is noticed within it."""


@dataclass(frozen=True, slots=True)
class Work:
    """One generation: the prompt, its block hashes and their seed, the tokens to come, why they will end."""

    prompt: Tokens
    hashes: list[int]
    seed: int
    answer: Tokens
    finish: str

    @property
    def computed_tokens(self) -> int:
        """Tokens whose KV exists at the end: the last answer token is never fed back."""
        return len(self.prompt) + max(0, len(self.answer) - 1)


@dataclass(slots=True)
class Totals:
    """Counters since the start of the node, in tokens and requests."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    turned_away: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


class Run:
    """One request that has been prefilled; each call of `next_token` is one decode step."""

    def __init__(self, work: Work, *, cached_tokens: int, gap: float) -> None:
        self.work = work
        self.cached_tokens = cached_tokens
        self.produced = 0
        self._gap = gap
        self._due = asyncio.get_running_loop().time()

    async def next_token(self) -> None:
        """Wait until the next token is there; the first comes with the prefill."""
        if self._gap and self.produced:
            self._due += self._gap
            delay = self._due - asyncio.get_running_loop().time()
            if delay > 0:
                await asyncio.sleep(delay)
        elif self.produced % _TOKENS_BETWEEN_BREATHS == _TOKENS_BETWEEN_BREATHS - 1:
            await asyncio.sleep(0)
        self.produced += 1

    async def rest(self) -> None:
        """Wait until all tokens are there."""
        remaining = len(self.work.answer) - self.produced
        steps = remaining if self.produced else remaining - 1
        if self._gap and steps > 0:
            self._due += self._gap * steps
            await asyncio.sleep(max(0.0, self._due - asyncio.get_running_loop().time()))
        self.produced = len(self.work.answer)


@dataclass(slots=True, eq=False)
class _Ticket:
    work: Work
    admitted: asyncio.Future[Lease]


class Engine:
    """The running and the waiting requests of one node, over one block cache."""

    def __init__(self, spec: StubSpec, on_event: Callable[[Event], None]) -> None:
        self.cache = BlockCache(block_size=spec.block, capacity=spec.capacity, on_event=on_event)
        self._caches = spec.has("prefix_caching")
        self.totals = Totals()
        self.running = 0
        self._spec = spec
        self._waiting: deque[_Ticket] = deque()
        self._prefilling = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of the waiting requests."""
        return sum(len(ticket.work.prompt) for ticket in self._waiting)

    def work(self, prompt: Tokens, answer: Tokens, *, seed: int, finish: str) -> Work:
        """The generation of `answer` to `prompt`, with the prompt's block hashes."""
        hashes = chain(prompt, block_size=self.cache.block_size, seed=seed) if self._caches else []
        return Work(prompt=prompt, hashes=hashes, seed=seed, answer=answer, finish=finish)

    @asynccontextmanager
    async def run(self, work: Work) -> AsyncIterator[Run]:
        """Wait for a place, prefill, then hand the request to the caller, who takes its tokens.

        Leaving the block in any way ends the request: as finished if all tokens were taken, else as aborted.
        Raises Refused when the waiting queue is full.
        """
        lease = await self._admit(work)
        run = None
        try:
            cached = lease.hit_blocks * self.cache.block_size
            await self._prefill(work, lease, cached)
            self.totals.prompt_tokens += len(work.prompt)
            self.totals.cached_tokens += cached
            gap = 1 / self._spec.decode_rate if self._spec.decode_rate else 0.0
            run = Run(work, cached_tokens=cached, gap=gap)
            yield run
        finally:
            self._end(work, lease, run)

    def refuse_when_full(self) -> None:
        """Raises Refused when a request that came now would find the waiting queue full."""
        if self._spec.max_waiting and len(self._waiting) >= self._spec.max_waiting:
            self.totals.turned_away += 1
            raise Refused(Refusal(503, "queue_full", "The request queue is full."))

    async def _admit(self, work: Work) -> Lease:
        if not self._waiting:
            lease = self._start(work)
            if lease is not None:
                return lease
        self.refuse_when_full()
        ticket = _Ticket(work, asyncio.get_running_loop().create_future())
        self._waiting.append(ticket)
        try:
            return await ticket.admitted
        except asyncio.CancelledError:
            self._withdraw(ticket)
            raise

    def _start(self, work: Work) -> Lease | None:
        """A lease if `work` may run now; called at its turn only, since it looks the prompt up in the
        cache.
        """
        if self._prefilling or self.running >= self._spec.max_running:
            return None
        lease = self.cache.acquire(
            work.hashes, prompt_tokens=len(work.prompt), total_tokens=work.computed_tokens
        )
        if lease is not None:
            self.running += 1
            self._prefilling = bool(self._spec.prefill_rate)
        return lease

    def _withdraw(self, ticket: _Ticket) -> None:
        """Take back a request that left while it waited, or between its admission and its first step."""
        self.totals.ended["abort"] += 1
        if ticket.admitted.cancelled():
            if ticket in self._waiting:
                self._waiting.remove(ticket)
        else:
            self.cache.release(ticket.admitted.result())
            self.running -= 1
            self._prefilling = False
        self._wake()

    async def _prefill(self, work: Work, lease: Lease, cached: int) -> None:
        if self._spec.prefill_rate:
            seconds = (len(work.prompt) - cached) / self._spec.prefill_rate
            try:
                await asyncio.sleep(seconds)
            finally:
                self._prefilling = False
            self.totals.prefill_seconds += seconds
        self.cache.store(lease, work.hashes)
        self._wake()

    def _end(self, work: Work, lease: Lease, run: Run | None) -> None:
        if run is not None:
            self.totals.answer_tokens += run.produced
            if self._spec.decode_rate:
                self.totals.decode_seconds += run.produced / self._spec.decode_rate
            self._keep(work, lease, run.produced)
        finished = run is not None and run.produced == len(work.answer)
        self.totals.ended[work.finish if finished else "abort"] += 1
        self.cache.release(lease)
        self.running -= 1
        self._wake()

    def _keep(self, work: Work, lease: Lease, produced: int) -> None:
        """Store the blocks that the answer filled."""
        if self._caches:
            computed = work.prompt + work.answer[: max(0, produced - 1)]
            size = self.cache.block_size
            self.cache.store(lease, chain(computed, block_size=size, seed=work.seed, known=lease.held))

    def _wake(self) -> None:
        while self._waiting:
            ticket = self._waiting[0]
            if not ticket.admitted.cancelled():
                lease = self._start(ticket.work)
                if lease is None:
                    return
                ticket.admitted.set_result(lease)
            self._waiting.popleft()
