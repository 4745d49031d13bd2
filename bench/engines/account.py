"""What a prefix cache could have given for each request, by the token ids themselves, and what it gave. Pure.

*Reusable* tokens of a request are those of its prompt that any earlier request of the fleet left behind: the
longest prefix that the prompt shares with an earlier request's prompt and answer, less the answer's last
token (it is never computed), in whole blocks, and never the whole prompt (the last token is always computed,
for it says what comes next). Earlier is what had ended when the request began, on whichever node and whoever
sent it: users' turns as well as the gateway's own calls. So a request that went to the wrong node counts
against the gateway; what no cache could know does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.engines.recorder import Call

END_OF_MESSAGE = 2
"""The token that ends a message in ChatML, of the small model."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request's account, in tokens."""

    call: Call
    reusable: int
    same_node: int
    """Of the reusable ones, what the node that was asked had."""

    @property
    def found(self) -> int:
        """What was served from cache of what could be."""
        return min(self.call.cached, self.reusable)


def accounts(calls: Sequence[Call], *, block: int) -> list[Entry]:
    """The account of each call, in the order in which they began."""
    ordered = sorted(calls, key=lambda call: call.began_at)
    return [
        Entry(call, _reusable(call, ordered, block), _reusable(call, _of_node(ordered, call.node), block))
        for call in ordered
    ]


def share_found(entries: Sequence[Entry]) -> float:
    """Of the reusable tokens, the share that was served from cache."""
    reusable = sum(entry.reusable for entry in entries)
    return sum(entry.found for entry in entries) / reusable if reusable else 1.0


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def is_cut(before: Call, call: Call) -> bool:
    """Whether the prompt is not the one before, continued: it differs before its last message.

    A tail that was dropped from the last message, or an answer that is tokenised otherwise when it comes
    back, is no cut.
    """
    begins = shared(before.prompt, call.prompt)
    return END_OF_MESSAGE in before.prompt[begins:-8]


def drift(before: Call, call: Call) -> int:
    """How many tokens of the answer before came back as others, where that answer was sent again."""
    whole = (*before.prompt, *before.answer)
    begins = shared(whole, call.prompt)
    return len(whole) - begins if begins >= len(before.prompt) else 0


def _reusable(call: Call, others: Sequence[Call], block: int) -> int:
    longest = max(
        (
            shared((*other.prompt, *other.answer[:-1]), call.prompt)
            for other in others
            if other.ended_at <= call.began_at
        ),
        default=0,
    )
    return min(longest, len(call.prompt) - 1) // block * block


def _of_node(calls: Sequence[Call], node: str) -> list[Call]:
    return [call for call in calls if call.node == node]
