"""When a new version of the memory is due, when the cut moves to it, and what a model is asked for it. Pure.

The version is made in advance, while the window still has some turns to grow, so that nobody waits for it.
The call that makes it continues the live prompt, whose KV the node has: only the instruction is new.
"""

from collections.abc import Sequence

import msgspec

from history.conversation import Memory
from history.memory import is_chinese
from history.window import WindowRule, advance, step

_QUOTED_CHARS = 60


class CompactionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How turns that leave the window are kept in mind."""

    enabled: bool = True
    """Without it, turns leave the window unread."""
    lead_turns: int = 4
    """How many turns before the cut the memory is made; at most `min_turns - 1` count."""
    lag_turns: int = 8
    """How many turns may leave the window before a version covers them, where a cut costs nothing since the
    KV is gone; at most `min_turns`. Recall finds them meanwhile. 0: none."""
    max_tokens: int = 400
    """How long an answer to the instruction may be."""
    max_facts: int = 24
    model: str = ""
    """Another, cheaper model for it; its call is no cache hit. Empty: the conversation's own."""


class Instructions(msgspec.Struct, frozen=True):
    """The instruction's texts, with `{last}`, `{words}` and `{facts}` to be filled in."""

    english: str
    chinese: str


class Stretch(msgspec.Struct, frozen=True):
    """The turns that a version is made of: those before `start` are in the version before."""

    start: int
    covers_to: int


def shown(memories: Sequence[Memory], shows: int) -> Memory | None:
    """The version that covers `shows` turns."""
    return next((one for one in memories if one.covers_to == shows), None)


def shows_at(cut: int, was_cut: int, shows: int, memories: Sequence[Memory]) -> int:
    """Which version a prompt shows, by the turns it covers; 0: none.

    A prompt's beginning changes only at a cut: there it takes the newest version that covers no turn still in
    the window. One that caught up with earlier cuts waits for the next.
    """
    if cut == was_cut and (shows == 0 or shown(memories, shows) is not None):
        return shows
    return max((one.covers_to for one in memories if one.covers_to <= cut), default=0)


def pending(memories: Sequence[Memory], cut: int) -> Memory | None:
    """The version that waits for the next cut, if one was made in advance."""
    return next((one for one in memories if one.covers_to > cut), None)


def due(
    cut: int, tokens: Sequence[int], memories: Sequence[Memory], window: WindowRule, rule: CompactionRule
) -> Stretch | None:
    """What the next version should cover, if it is time to make it. `tokens[i]` belongs to turn `cut + i`.

    It is time when `lead_turns` more turns of the mean size, and one more, would cause a cut for which no
    version waits. Turns that left without a version are caught up with first, one cycle at a time, once there
    are as many as may lag.
    """
    if not rule.enabled or window.policy != "stepped":
        return None
    start = memories[-1].covers_to if memories else 0
    if cut - start >= max(1, _lag(window, rule)):
        return Stretch(start=start, covers_to=min(cut, start + step(window)))
    if start > cut or not tokens:
        return None
    mean = sum(tokens) // len(tokens)
    ahead = min(rule.lead_turns, window.min_turns - 1) + 1
    if advance(cut, [*tokens, *[mean] * ahead], window) == cut:
        return None
    targets = (advance(cut, [*tokens, *[mean] * more], window) for more in range(1, ahead + 1))
    first = next(target for target in targets if target > cut)
    return Stretch(start=start, covers_to=min(first, cut + len(tokens)))


def settled(
    cut: int, tokens: Sequence[int], memories: Sequence[Memory], window: WindowRule, rule: CompactionRule
) -> int:
    """Where the cut goes: to the version that waits for it, in the step in which the window asks for a cut.

    A version that is late lets the window grow, up to the token ceiling and to one cycle more than
    `max_turns`: then the turns leave without it, and it catches up with them.
    """
    wanted = advance(cut, tokens, window)
    if wanted == cut or not rule.enabled or window.policy != "stepped":
        return wanted
    waiting = pending(memories, cut)
    fits = waiting is not None and waiting.covers_to <= cut + len(tokens) - window.min_turns
    moved = waiting.covers_to if waiting is not None and fits else cut
    left = tokens[moved - cut :]
    too_long = len(left) > window.max_turns + step(window)
    too_large = bool(window.max_tokens) and sum(left) > window.max_tokens
    return max(moved, wanted) if too_long or too_large else moved


def free(cut: int, count: int, memories: Sequence[Memory], window: WindowRule, rule: CompactionRule) -> int:
    """The cut of a conversation whose KV is gone anyway: it drops now, at no cost, what it would drop later.

    `count` turns are in the window; at least `min_turns` of them stay, and all but `lag_turns` of those that
    no version covers. A version that reaches further into the window waits for its own cut.
    """
    if window.policy != "stepped":
        return cut
    furthest = cut + count - window.min_turns
    covered = memories[-1].covers_to if memories else 0
    if not rule.enabled:
        return max(cut, furthest)
    if furthest < covered:
        return cut
    return max(cut, min(furthest, covered + _lag(window, rule)))


def _lag(window: WindowRule, rule: CompactionRule) -> int:
    return min(rule.lag_turns, window.min_turns)


def instruction(texts: Instructions, *, last: str, sample: str, rule: CompactionRule) -> bytes:
    """The message that asks for a version, as JSON. `last` begins the last turn that it has to cover.

    In the language of `sample`.
    """
    text = texts.chinese if is_chinese(sample) else texts.english
    filled = (
        text.replace("{words}", str(rule.max_tokens * 2 // 3))
        .replace("{facts}", str(rule.max_facts))
        .replace("{last}", " ".join(last.split())[:_QUOTED_CHARS])
    )
    return msgspec.json.encode({"role": "user", "content": filled.strip()})
