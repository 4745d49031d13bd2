"""Making the vectors of turns that left the window, some at a time, for recall by meaning. The use case.

Nothing of it has to survive: what was not made is made after the conversation's next turn. Vectors say
themselves of which turns they are, so two replicas that make the same ones, a branch, or a crash in between
do no harm.
"""

from collections.abc import Callable

from history.conversation import Conversation, ConversationKey
from history.meaning import (
    NO_VECTORS,
    Vectors,
    VectorSpan,
    embedded_text,
    form_of,
    is_of_form,
    record_of,
    still_true,
)
from history.ports import ConversationStore, Embedder
from history.recall import RecallRule
from history.tail_maker import past_of

_PAGE = 500
_BATCHES = 8
"""Calls to a node for one conversation, before others have theirs."""

Made = Callable[[ConversationKey, Vectors, str], None]
"""Told of vectors that were made and stored, with what the archived turns are (`past_of`)."""


class Embedding:
    """Tends the conversations of one store."""

    def __init__(self, store: ConversationStore, embedder: Embedder, rule: RecallRule, made: Made) -> None:
        self._store = store
        self._embedder = embedder
        self._rule = rule
        self._made = made
        self._form = form_of(rule.meaning)

    async def tend(self, key: ConversationKey) -> tuple[int, bool]:
        """Make what is lacking, up to a bound; how many were made, and whether more is lacking.

        Raises `StoreFault`, and what the embedder raises.
        """
        conversation = await self._store.load(key)
        if conversation is None:
            return 0, False
        start = first = await self._from(key, conversation)
        for _ in range(_BATCHES):
            stop = min(start + self._rule.meaning.batch, conversation.cut)
            if start >= stop or not await self._make(key, conversation, start, stop):
                return start - first, False
            start = stop
        return start - first, start < conversation.cut

    async def _make(self, key: ConversationKey, conversation: Conversation, start: int, stop: int) -> bool:
        turns = await self._store.read(key, start, stop)
        if len(turns) != stop - start:
            return False
        texts = [embedded_text(turn, self._rule.meaning) or "-" for turn in turns]
        found = await self._embedder.of_turns(texts)
        vectors = Vectors(
            form=f"{self._form}/{len(found[0])}",
            past=conversation.past.number,
            created_at=conversation.created_at,
            start=start,
            records=tuple(record_of(turn, vector) for turn, vector in zip(turns, found, strict=True)),
        )
        if not await self._store.embed(key, vectors, most=self._rule.max_turns):
            return False
        self._made(key, vectors, past_of(conversation))
        return True

    async def _from(self, key: ConversationKey, conversation: Conversation) -> int:
        """The first turn whose vector is lacking, of those that can be found."""
        oldest = max(0, conversation.cut - self._rule.max_turns)
        span, _ = await self._store.vectors(key)
        is_usable = is_of_form(span.form, self._form) and span.start <= oldest <= span.stop
        if span == NO_VECTORS or not is_usable:
            return oldest
        if span.past == conversation.past.number:
            return max(oldest, span.stop)
        return max(oldest, await self._true_up_to(key, span))

    async def _true_up_to(self, key: ConversationKey, span: VectorSpan) -> int:
        """Turns were replaced since: up to where the vectors are those of the turns that are there."""
        start = span.start
        while start < span.stop:
            stop = min(start + _PAGE, span.stop)
            _, records = await self._store.vectors(key, start, stop)
            true = still_true(records, await self._store.digests(key, start, stop))
            start += true
            if start < stop:
                break
        return start
