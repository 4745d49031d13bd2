"""Prompts that no user waits for: the call that makes a memory, and the one that warms a prefix.

They go the way of every request, with the same fields where these shape the prompt, so that they find and
leave their KV where the conversation's turns do. Their tokens are counted apart from the users'.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from gateway.clock import Clock
from gateway.dispatch import Dispatcher, Job
from gateway.frame import background_request
from gateway.nodes import completion
from gateway.nodes.completion import Completion
from gateway.ports import Headers, Pausable
from gateway.request import ChatRequest
from gateway.rollout.versions import Versions
from gateway.routing.router import Decision, Router
from gateway.scoring import Prefix, outcome, prefix_of_prompt, score
from gateway.telemetry import Telemetry
from history.conversation import Binding, Conversation, ConversationKey
from history.prompt import Prompt

Purpose = Literal["compaction", "warm"]


class Order(msgspec.Struct, frozen=True):
    """One call: whose it is, how its prompt is shaped, and how long the answer may be."""

    key: ConversationKey
    conversation: Conversation
    frame: ChatRequest
    """Of that conversation's requests: model, tools and template options shape the prompt."""
    prompt: Prompt
    purpose: Purpose
    max_tokens: int
    model: str = ""
    """Another model than the frame's."""


class Delivered(msgspec.Struct, frozen=True):
    """What came of an order."""

    said: Completion
    binding: Binding
    """Where the prompt's KV lies now."""


@dataclass(frozen=True, slots=True)
class Background:
    """Gets orders answered."""

    dispatcher: Dispatcher
    router: Router
    telemetry: Telemetry
    clock: Clock
    versions: Versions
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def deliver(self, order: Order) -> Delivered:
        """Raises a `GatewayError` where no node answers."""
        request = background_request(order.frame, max_tokens=order.max_tokens, model=order.model)
        now = self.clock.now()
        moves = order.purpose == "warm"
        request = self.versions.of_upkeep(request, order.key, order.conversation, moves=moves, now=now)
        prefix = prefix_of_prompt(request, order.key, order.conversation, order.prompt, self.router, now=now)
        job = self._job(order, request, prefix, now.steady)
        served = await self.dispatcher.serve(job, Nowhere())
        said = completion.from_json(served.body)
        said = msgspec.structs.replace(said, usage=self.dispatcher.believed(job, served, said.usage))
        self.router.learn(served.decision, outcome(said.usage, served.first_s))
        block = self.router.block_size(served.decision.node)
        _, scored = score(request.target, prefix, served.decision, said.usage, block)
        self.telemetry.background[order.purpose].add(scored)
        binding = Binding(
            node=served.decision.node,
            prefix=prefix.chain.links[-1],
            tokens=said.usage.prompt_tokens,
            at=self.clock.wall(),
            version=request.version,
        )
        self.router.note(served.decision, [(binding.prefix, binding.tokens)], self.clock.steady())
        return Delivered(said=said, binding=binding)

    def _job(self, order: Order, request: ChatRequest, prefix: Prefix, now: float) -> Job:
        name = f"{order.purpose}-{next(self.numbers)}"
        return Job(
            request=request,
            messages=order.prompt.json(),
            prefix=prefix,
            is_remembered=False,
            received_at=now,
            request_id=name,
            headers=((b"x-request-id", name.encode()),),
            reply_headers=_no_headers,
            priority="background",
            tenant=order.key.tenant,
        )


class Nowhere:
    """A `Reply` that nobody reads: background calls are never streamed."""

    is_started = False
    is_finished = False

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """Nobody is told."""

    def write(self, data: bytes) -> None:
        """Nobody is told."""

    def finish(self) -> None:
        """Nobody is told."""

    def attach(self, source: Pausable | None) -> None:
        """Nothing is held up."""

    def hold_together(self) -> None:
        """Nobody can leave."""


def _no_headers(_: Decision) -> Headers:
    return ()
