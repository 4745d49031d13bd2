"""What is sent to a fleet: a prompt as the extents of its blocks, and a request with what becomes of it.

An extent is a run of blocks that is always reached through the same parent: a persona, a conversation since
its last cut, an unbranched path of a recorded trace. A prompt of 5,000 tokens is two or three extents, so
block-exact caching costs two or three steps instead of three hundred.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

Kind = Literal["turn", "background"]
Extent = tuple[int, int]
"""A name, and how many of its leading blocks the prompt has."""


class Prompt(msgspec.Struct, frozen=True, gc=False):
    """One prompt. `extents` hold its full blocks in order."""

    tokens: int
    extents: tuple[Extent, ...]
    answer: int
    """The extent that keeps the answer's blocks: the last one where dialogues go on, else one of its own."""
    links: Sequence[bytes] = ()
    """Identities of its prefixes, as the gateway's chain over messages has them."""
    heads: tuple[tuple[bytes, int], ...] = ()
    """Links of prefixes that other prompts share (persona, system prompt), with their tokens."""
    answered: bytes = b""
    """The link after the answer; empty where the next prompt is not known to begin with it."""
    reusable: int = 0
    """Blocks that an earlier request of the same dialogue left of it on some node; 0: none."""
    before: int = 0
    """Tokens before the newest message, where an answer is among them: any prompt shows that."""
    shared: int = 0
    """How many of those are everybody's (the persona), so that holding them alone is not warm."""

    def blocks(self) -> int:
        """Its full blocks."""
        return sum(count for _, count in self.extents)


@dataclass(slots=True, eq=False)
class Request:
    """One request and its fate. Times are simulated seconds, -1 where not yet."""

    prompt: Prompt
    output_tokens: int
    key: int
    """What a client sends as its session; without one, a number of the whole prompt."""
    conversation: int = -1
    """Whose turn it is, for a gateway that remembers; -1: stateless."""
    kind: Kind = "turn"
    is_measured: bool = True
    source: object = None
    """What its traffic knows it by."""
    arrived_at: float = -1.0
    first_at: float = -1.0
    ended_at: float = -1.0
    is_broken: bool = False
    """Its node died after it had begun to stream."""
    node: int = -1
    replica: int = 0
    cached_tokens: int = 0
    excluded: set[int] = field(default_factory=set)
    """Nodes that failed it."""
    held_blocks: int = 0
    """KV blocks that it occupies on its node; set when its prefill begins."""
    estimate: int = 0
    """Uncached tokens at the time it was queued."""
    memo: object = None
    """What the policy that placed it wants to find again."""

    def uncached(self) -> int:
        """Prompt tokens that its node computed."""
        return self.prompt.tokens - self.cached_tokens
