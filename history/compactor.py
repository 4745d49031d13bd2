"""Making a version of the memory: read what leaves the window, ask a model about it, keep what it says.

The use case of compaction. It holds no lease, so turns go on being written meanwhile; the version is added
by compare-and-set at the end. Whatever goes wrong before that leaves everything as it was, and the version
is due again after the next turn.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from history.compaction import Instructions, Stretch, instruction
from history.conversation import Conversation, ConversationKey, Memory, Turn
from history.kept_tail import said_messages
from history.memory import read_notes, renewed
from history.message import text_of
from history.ports import ConversationStore, Learned
from history.prompt import Prompt, build
from history.rules import DialogueRules

Outcome = Literal["kept", "stale", "empty"]
"""`stale`: the conversation went on so that the version does not fit. `empty`: the model said nothing."""

Scribe = Callable[[Conversation, Prompt], Awaitable[str]]
"""Gets a prompt of this conversation answered by a model, in at most `CompactionRule.max_tokens` tokens."""


class Compactor:
    """Makes versions for the conversations of one store. `clock`: Unix seconds."""

    def __init__(
        self,
        store: ConversationStore,
        rules: DialogueRules,
        texts: Instructions,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._rules = rules
        self._texts = texts
        self._clock = clock

    async def compact(self, key: ConversationKey, stretch: Stretch, scribe: Scribe) -> Outcome:
        """Make the version that covers this stretch. Raises what `scribe` raises, and `StoreFault`."""
        conversation = await self._store.load(key)
        if conversation is None or not _fits(conversation, stretch):
            return "stale"
        turns = await self._turns(key, conversation, stretch)
        covered = turns[: stretch.covers_to - stretch.start]
        if len(covered) < stretch.covers_to - stretch.start:
            return "stale"
        before = conversation.memories[-1] if conversation.memories else None
        asked = self._instruction(covered)
        prompt = build(conversation.persona, before, turns, [asked], cut=stretch.start)
        text = await scribe(conversation, prompt)
        notes = read_notes(text, max_facts=self._rules.compaction.max_facts)
        if notes is None:
            return "empty"
        notes = renewed(before, notes, max_facts=self._rules.compaction.max_facts)
        memory = Memory(
            covers_to=stretch.covers_to,
            version=conversation.memory_version + 1,
            summary=notes.summary,
            facts=notes.facts,
            at=self._clock(),
        )
        learned = Learned(
            memory=memory,
            expected_version=conversation.memory_version,
            start=stretch.start,
            digests=b"".join(turn.digests for turn in covered),
        )
        return "kept" if await self._store.remember(key, learned) else "stale"

    async def _turns(
        self, key: ConversationKey, conversation: Conversation, stretch: Stretch
    ) -> tuple[Turn, ...]:
        """The turns that the model sees: the whole window, as in the live prompt, if it begins there."""
        is_live = stretch.start == conversation.cut
        stop = conversation.turn_count if is_live else stretch.covers_to
        turns = await self._store.read(key, stretch.start, stop)
        # A tool call without its result can be followed by nothing but that result.
        return turns[:-1] if turns and turns[-1].status == "open" else turns

    def _instruction(self, covered: Sequence[Turn]) -> bytes:
        said = [said_messages(turn.messages, turn.tailed) for turn in covered]
        texts = [text_of(message) for messages in said for message in messages]
        first_of_last = text_of(said[-1][0]) if said[-1] else ""
        return instruction(
            self._texts, last=first_of_last, sample=" ".join(texts), rule=self._rules.compaction
        )


def _fits(conversation: Conversation, stretch: Stretch) -> bool:
    start = conversation.memories[-1].covers_to if conversation.memories else 0
    return start == stretch.start and stretch.covers_to <= conversation.turn_count
