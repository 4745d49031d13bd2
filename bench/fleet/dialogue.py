"""One simulated dialogue: what its next prompt is made of, under each way of keeping a window.

`sliding` and `stepped` are clients that cut their own history; `gateway` cuts as this product does: in steps,
with a memory in front that is made in advance, and the new prefix warmed at once.
"""

from typing import Literal

import msgspec

from bench.fleet.prompt import Extent, Prompt
from history.window import WindowRule, advance, stateless_cut

Mode = Literal["sliding", "stepped", "gateway"]


class Layout(msgspec.Struct, frozen=True):
    """How prompts are laid out."""

    mode: Mode = "stepped"
    window: WindowRule = WindowRule()
    """For `sliding`, `min_turns` is how many turns are shown."""
    persona_tokens: int = 800
    memory_tokens: int = 200
    lead_turns: int = 4
    instruction_tokens: int = 150
    free_every: int = 0
    """Gateway only: make a memory whenever so many turns more than `min_turns` have none, and cut to it as
    soon as the KV is gone anyway; 0: as the product does, only before the cut that is due."""
    block: int = 16


class Dialogue:
    """The window of one conversation and the extent of its present prefix."""

    __slots__ = (
        "_asked", "_epoch", "_extent", "_links", "_rule", "_shown", "_sizes", "covered", "cut", "has_memory",
        "id", "is_open", "persona", "reusable", "turn_count",
    )  # fmt: skip

    def __init__(self, number: int, persona: int, rule: Layout, *, said: list[int] | None = None) -> None:
        self.id = number
        self.persona = persona
        self._rule = rule
        self._sizes = list(said or ())
        self.turn_count = len(self._sizes)
        self.cut = 0
        self.covered = 0
        """Turns that the newest memory covers."""
        self.has_memory = False
        self.reusable = 0
        """Blocks of the present prefix that a node was made to compute."""
        self.is_open = False
        """Whether a message waits for its answer."""
        self._asked = 0
        self._shown = sum(self._sizes)
        self._epoch = 0
        self._extent = 0
        self._links: list[bytes] = []
        self._move_to(self._wanted_cut())
        self._begin_epoch()

    def ask(self, tokens: int) -> Prompt:
        """The prompt with a new user message."""
        if self._rule.mode != "gateway":
            self.recut()
        self._asked = tokens
        self.is_open = True
        self._links.append(self._link(b"u"))
        return self._prompt(self._length() + tokens, self._links, self._link(b"a"), self.reusable)

    def answer(self, tokens: int) -> None:
        """The answer is complete: the turn counts, and its node has all of it."""
        self._links.append(self._link(b"a"))
        self.reusable = (self._length() + self._asked + tokens - 1) // self._rule.block
        self._sizes.append(self._asked + tokens)
        self._shown += self._asked + tokens
        self.turn_count += 1
        self.is_open = False

    def give_up(self) -> None:
        """There was no answer: the message is not kept."""
        self._links.pop()
        self.is_open = False

    def recut(self) -> bool:
        """Move the cut if it is time; whether the prefix is another one now."""
        cut = self._wanted_cut()
        if cut == self.cut:
            return False
        self._move_to(cut)
        self._begin_epoch()
        return True

    def memory_is_due(self) -> bool:
        """Whether now is the turn after which a memory is made."""
        if self._rule.free_every:
            oldest = max(self.cut, self.covered)
            return self.turn_count - oldest >= self._rule.window.min_turns + self._rule.free_every
        return self.turn_count - self.cut == self._rule.window.max_turns - self._rule.lead_turns

    def compaction(self) -> Prompt:
        """The call that makes the memory: the dialogue so far and an instruction."""
        self.covered = self.turn_count - self._rule.window.min_turns
        tokens = self._length() + self._rule.instruction_tokens
        prompt = self._prompt(self._length(), self._links, b"", self.reusable)
        more = tokens // self._rule.block - prompt.blocks()
        own = self._extent + 1
        return msgspec.structs.replace(
            prompt,
            tokens=tokens,
            extents=(*prompt.extents, (own, more)),
            answer=own,
            links=[*self._links, self._link(b"i")],
        )

    def warming(self) -> Prompt:
        """The beginning of the next prompt."""
        prompt = self._prompt(self._length(), list(self._links), b"", 0)
        self.reusable = prompt.blocks()
        return prompt

    def cut_for_free(self) -> None:
        """The KV is gone: take the memory that waits, as everything is computed again anyway."""
        if self._rule.free_every and self.covered > self.cut:
            self._move_to(self.covered)
            self._begin_epoch()

    def prefix(self) -> tuple[Extent, ...]:
        """What a node was made to compute of the present prefix."""
        shared = self._rule.persona_tokens // self._rule.block
        return ((self.persona, shared), (self._extent, max(0, self.reusable - shared)))

    def _wanted_cut(self) -> int:
        rule = self._rule.window
        if self._rule.mode == "sliding":
            return max(0, self.turn_count - rule.min_turns)
        if self._rule.mode == "stepped":
            return stateless_cut(self.turn_count, rule)
        return advance(self.cut, self._sizes, rule)

    def _move_to(self, cut: int) -> None:
        self._shown -= sum(self._sizes[: cut - self.cut])
        del self._sizes[: cut - self.cut]
        self.has_memory = self.has_memory or (self._rule.mode == "gateway" and cut > 0)
        self.cut = cut

    def _begin_epoch(self) -> None:
        self._epoch += 1
        self._extent = ((self.id + 1) << 20) + 2 * self._epoch
        self.reusable = 0
        head = [b"p%d" % self.persona] + ([self._link(b"m")] if self.has_memory else [])
        old = (b"%d.%d.%d" % (self.id, self._epoch, at) for at in range(2 * len(self._sizes)))
        self._links = [*head, *old]

    def _length(self) -> int:
        """Tokens of persona, memory and window."""
        return self._rule.persona_tokens + self.has_memory * self._rule.memory_tokens + self._shown

    def _link(self, what: bytes) -> bytes:
        return b"%d.%d.%b%d" % (self.id, self._epoch, what, self.turn_count)

    def _prompt(self, tokens: int, links: list[bytes], answered: bytes, reusable: int) -> Prompt:
        shared = self._rule.persona_tokens // self._rule.block
        return Prompt(
            tokens=tokens,
            extents=((self.persona, shared), (self._extent, tokens // self._rule.block - shared)),
            answer=self._extent,
            links=links,
            heads=((b"p%d" % self.persona, self._rule.persona_tokens),),
            answered=answered,
            reusable=reusable,
            shared=shared,
        )
