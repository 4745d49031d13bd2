"""One simulated dialogue: what its next prompt is made of, under each way of keeping a window.

`sliding` and `stepped` are clients that cut their own history. `gateway` cuts as this product does, by its
own functions: in steps, with a memory in front that is made in advance, the new prefix warmed at once; and
without waiting where the KV has gone.
"""

from typing import Literal

import msgspec

from bench.fleet.prompt import Extent, Prompt
from history.compaction import CompactionRule, Stretch, due, free, settled
from history.conversation import Memory
from history.window import WindowRule, stateless_cut

Mode = Literal["sliding", "stepped", "gateway"]


class Layout(msgspec.Struct, frozen=True):
    """How prompts are laid out."""

    mode: Mode = "stepped"
    window: WindowRule = WindowRule()
    """For `sliding`, `min_turns` is how many turns are shown."""
    persona_tokens: int = 800
    memory_tokens: int = 200
    compaction: CompactionRule = CompactionRule()
    instruction_tokens: int = 150
    block: int = 16


class Dialogue:
    """The window of one conversation and the extent of its present prefix."""

    __slots__ = (
        "_asked", "_epoch", "_extent", "_left", "_links", "_memories", "_rule", "_shown", "_sizes", "cut",
        "id", "is_open", "persona", "reusable", "turn_count", "window",
    )  # fmt: skip

    def __init__(self, number: int, persona: int, rule: Layout, *, said: list[int] | None = None) -> None:
        self.id = number
        self.persona = persona
        self._rule = rule
        self._sizes = list(said or ())
        self.turn_count = len(self._sizes)
        self.cut = 0
        self.window = rule.window
        """A gateway may give it another one, with any cut."""
        self._memories: tuple[Memory, ...] = ()
        self._left: list[int] = []
        """The sizes of turns before the cut."""
        self.reusable = 0
        """Blocks of the present prefix that a node was made to compute."""
        self.is_open = False
        """Whether a message waits for its answer."""
        self._asked = 0
        self._shown = sum(self._sizes)
        self._epoch = 0
        self._extent = 0
        self._links: list[bytes] = []
        self._move_to(self._begun_at())
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

    @property
    def has_memory(self) -> bool:
        """Whether the prompt shows one."""
        return any(memory.covers_to <= self.cut for memory in self._memories)

    @property
    def shown(self) -> int:
        """Turns in the window."""
        return len(self._sizes)

    @property
    def tokens(self) -> int:
        """Of the present prefix."""
        return self._length()

    @property
    def mean_turn(self) -> float:
        """Tokens of a turn in the window."""
        return self._shown / max(1, len(self._sizes))

    def memory_due(self) -> Stretch | None:
        """What a memory should cover that is made now."""
        return due(self.cut, self._sizes, self._memories, self.window, self._rule.compaction)

    def compaction(self, stretch: Stretch) -> Prompt:
        """The call that makes the memory: the dialogue so far and an instruction.

        Of turns that left without one, only those.
        """
        made = Memory(covers_to=stretch.covers_to, version=len(self._memories) + 1, summary="")
        self._memories = (*self._memories, made)[-2:]
        if stretch.start < self.cut:
            return self._catching_up(stretch)
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

    def _catching_up(self, stretch: Stretch) -> Prompt:
        rule, own = self._rule, self._extent + 1
        sizes = (*self._left, *self._sizes)[stretch.start : stretch.covers_to]
        tokens = rule.persona_tokens + rule.memory_tokens + sum(sizes) + rule.instruction_tokens
        shared = rule.persona_tokens // rule.block
        head = b"p%d" % self.persona
        return Prompt(
            tokens=tokens,
            extents=((self.persona, shared), (own, tokens // rule.block - shared)),
            answer=own,
            links=[head, self._link(b"c")],
            heads=((head, rule.persona_tokens),),
        )

    def warming(self) -> Prompt:
        """The beginning of the next prompt."""
        prompt = self._prompt(self._length(), list(self._links), b"", 0)
        self.reusable = prompt.blocks()
        return prompt

    def cut_for_free(self) -> bool:
        """The KV is gone, and everything is computed again anyway; whether that cut anything."""
        cut = free(self.cut, len(self._sizes), self._memories, self.window, self._rule.compaction)
        if cut == self.cut:
            return False
        self._move_to(cut)
        self._begin_epoch()
        return True

    def prefix(self) -> tuple[Extent, ...]:
        """What a node was made to compute of the present prefix."""
        shared = self._rule.persona_tokens // self._rule.block
        return ((self.persona, shared), (self._extent, max(0, self.reusable - shared)))

    def _begun_at(self) -> int:
        """Where a dialogue of that length is cut that begins in the middle."""
        if self._rule.mode != "gateway":
            return self._wanted_cut()
        cut = stateless_cut(self.turn_count, self.window)
        if cut:
            self._memories = (Memory(covers_to=cut, version=1, summary=""),)
        return cut

    def _wanted_cut(self) -> int:
        rule = self._rule.window
        if self._rule.mode == "sliding":
            return max(0, self.turn_count - rule.min_turns)
        if self._rule.mode == "stepped":
            return stateless_cut(self.turn_count, rule)
        return settled(self.cut, self._sizes, self._memories, self.window, self._rule.compaction)

    def _move_to(self, cut: int) -> None:
        self._shown -= sum(self._sizes[: cut - self.cut])
        self._left += self._sizes[: cut - self.cut]
        del self._sizes[: cut - self.cut]
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
