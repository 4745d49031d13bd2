"""What stands behind a new message: what it refers to, what the client wants said, how long it has been.

Between the pure tail and the recall index: this is where a turn's tail is made, and where the index learns of
turns that left the window.
"""

from collections.abc import Callable, Sequence

from history.conversation import Conversation, ConversationKey, Turn
from history.incoming import Plan
from history.message import role_of, text_of
from history.open_turn import Ask
from history.passage import Passage
from history.recaller import Recaller
from history.rules import DialogueRules
from history.tail import Tail, tail_text


class TailMaker:
    """Makes tails for the conversations of one store; without a recaller nothing is recalled."""

    def __init__(self, recaller: Recaller | None, rules: DialogueRules, clock: Callable[[], float]) -> None:
        self._recaller = recaller
        self._rules = rules
        self._clock = clock

    async def make(
        self,
        key: ConversationKey,
        conversation: Conversation,
        plan: Plan,
        ask: Ask,
        *,
        cut: int,
        last_at: float,
    ) -> str:
        """The tail of the turn that this plan begins; empty where there is nothing to say.

        `cut`: where the prompt's window begins. `last_at`: when the turn before was stored, 0 without one.
        """
        text = _asked(plan)
        if text is None:
            return ""
        passages: tuple[Passage, ...] = ()
        if self._recaller is not None:
            # Never a cut that is not stored yet: another prompt may still show what it leaves out.
            archived = min(conversation.cut, cut)
            recalled = await self._recaller.recall(key, text, archive=past_of(conversation), cut=archived)
            passages = recalled.passages
        tail = Tail(recalled=passages, note=ask.note, lore=ask.lore, gap_s=self._gap(last_at))
        return tail_text(tail, user_text=text, max_recalled_tokens=self._rules.recall.max_tokens)

    def left(
        self, key: ConversationKey, conversation: Conversation, turns: Sequence[Turn], *, start: int
    ) -> None:
        """These turns, from position `start` on, have just left the window."""
        if self._recaller is not None and turns:
            self._recaller.left(key, turns, archive=past_of(conversation), start=start)

    def warm(self, key: ConversationKey, conversation: Conversation) -> None:
        """A message will come soon."""
        if self._recaller is not None:
            self._recaller.warm(key, archive=past_of(conversation), cut=conversation.cut)

    def _gap(self, last_at: float) -> float:
        least = self._rules.tail.gap_after_s
        gap = self._clock() - last_at
        return gap if least and last_at and gap >= least else 0.0


def past_of(conversation: Conversation) -> str:
    """What the turns before the cut are, as the recaller tells its indexes apart."""
    return f"{conversation.created_at}:{conversation.past.number}"


def _asked(plan: Plan) -> str | None:
    """What the user says in this turn, if a tail can stand behind it: neither behind a tool's result, nor
    where one stands already.
    """
    messages = plan.draft.messages
    if not messages or plan.draft.tailed is not None or role_of(messages[-1]) != "user":
        return None
    return text_of(messages[-1])
