"""Which part of a dialogue each of its prompts has shown: cuts and memories, replayed as they were served.
Pure.

The store keeps the cut and the newest versions of the memory, no history of either. What is certain: a
conversation that was never cut; a prompt whose tail was kept, since the tail notes its cut. Everything else
is replayed by the window's own rule (`history.window.advance`), under the assumption that each version of the
memory was ready in time, and says so.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from history.conversation import Conversation, Memory, Turn, token_estimate
from history.window import WindowRule, advance

Certainty = Literal["exact", "replayed", "memory_lost"]


class Shown(msgspec.Struct, frozen=True):
    """What the prompt of one turn has shown: the turns from `cut` on, and this memory."""

    cut: int
    memory: Memory | None
    certainty: Certainty


def shown_prompts(conversation: Conversation, turns: Sequence[Turn], rule: WindowRule) -> Iterator[Shown]:
    """For each turn of the active branch, in order, what its prompt has shown."""
    certain: Certainty = "replayed" if conversation.epoch else "exact"
    if not conversation.cut and all(turn.tailed is None or not turn.tailed.cut for turn in turns):
        yield from [Shown(0, None, certain)] * len(turns)
        return
    rule = _grown(rule, conversation)
    sizes = [token_estimate(turn) for turn in turns] if rule.max_tokens else [0] * len(turns)
    cut = 0
    for at, turn in enumerate(turns):
        is_noted = turn.tailed is not None and turn.tailed.cut <= at
        if turn.tailed is not None and is_noted:
            cut = turn.tailed.cut
        else:
            cut = max(cut, min(advance(cut, sizes[cut:at], rule), conversation.cut))
        memory, is_known = _memory_at(cut, conversation.memories)
        sure = certain if is_noted and is_known else "replayed"
        yield Shown(cut, memory, sure if is_known else "memory_lost")


def _grown(rule: WindowRule, conversation: Conversation) -> WindowRule:
    """As far as this conversation's window grows, where that is found (`max_turns: auto`)."""
    if not conversation.grows_to:
        return rule
    return msgspec.structs.replace(rule, max_turns=max(conversation.grows_to, rule.min_turns))


def _memory_at(cut: int, memories: Sequence[Memory]) -> tuple[Memory | None, bool]:
    """The version that a prompt with this cut shows, and whether it is known.

    The newest that covers no turn still in the window. With none among those that are kept, there was one
    that is kept no longer, unless the first version ever made is kept and came later.
    """
    best: Memory | None = None
    for one in memories:
        if one.covers_to <= cut and (best is None or one.covers_to > best.covers_to):
            best = one
    if best is not None or not cut or not memories:
        return best, True
    return None, memories[0].version == 1
