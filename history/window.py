"""How many turns go into the prompt: the cut as a function of what is stored.

A window that slides by one turn changes the first message of every prompt and with it every cached
block behind it. A *stepped* window grows append-only from `min_turns` to `max_turns` and then drops
c = max_turns - min_turns + 1 turns at once, so the prefix breaks once in c turns instead of every turn.

    n turns stored, L = min_turns, H = max_turns:    cut(n) = ceil(max(0, n - H) / c) * c

`advance` moves a stored cut by the same step, so both forms agree; a token ceiling is the second guard.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

Policy = Literal["all", "last_n", "stepped"]


class WindowRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which turns a prompt shows. `all` and `last_n` are there to be compared with."""

    policy: Policy = "stepped"
    min_turns: int = 20
    """Never fewer than these (unless they exceed the ceiling), once that many exist."""
    max_turns: int = 40
    """Never more than these. `last_n` shows exactly this many."""
    max_tokens: int = 0
    """Ceiling for the window's turns in tokens, persona and new message left out; 0: none."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_turns <= self.max_turns:
            raise ValueError(
                f"1 <= min_turns <= max_turns must hold, got min_turns={self.min_turns}, "
                f"max_turns={self.max_turns}"
            )
        if self.max_tokens < 0:
            raise ValueError(f"max_tokens must be 0 (no ceiling) or positive, got {self.max_tokens}")


class WindowSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which turns a prompt shows, as configured: the rule, or the bounds within which it is found."""

    policy: Policy = "stepped"
    min_turns: int = 20
    """Never fewer than these (unless they exceed the ceiling), once that many exist."""
    max_turns: int | Literal["auto"] = 40
    """Never more than these. `last_n` shows exactly this many. `auto`: as many as cost least by the
    pauses, caches and lengths that are seen (docs/adr/0018); it begins with twice `min_turns`."""
    auto_least: int = 0
    """Bounds of `auto`; 0: `min_turns` plus a fifth."""
    auto_most: int = 0
    """0: eight times `min_turns`."""
    max_tokens: int = 0
    """Ceiling for the window's turns in tokens, persona and new message left out; 0: none."""

    def __post_init__(self) -> None:
        if self.is_auto and self.policy != "stepped":
            raise ValueError(f"max_turns: auto is for policy: stepped, got {self.policy}")
        if self.auto_least < 0 or self.auto_most < 0:
            raise ValueError("auto_least and auto_most must be 0 (chosen for you) or positive")
        self.rule()
        least, most = self.bounds
        if not self.min_turns <= least <= most:
            raise ValueError(
                f"min_turns <= auto_least <= auto_most must hold, got {self.min_turns}, {least} and {most}"
            )

    @property
    def is_auto(self) -> bool:
        """Whether `max_turns` is to be found."""
        return self.max_turns == "auto"

    @property
    def bounds(self) -> tuple[int, int]:
        """Of `auto`, both included."""
        least = self.auto_least or self.min_turns + max(1, self.min_turns // 5)
        return least, self.auto_most or max(least, 8 * self.min_turns)

    def rule(self, max_turns: int = 0) -> WindowRule:
        """With so many turns at most, within the bounds, where that is found; 0: what it begins with."""
        if self.max_turns != "auto":
            return WindowRule(self.policy, self.min_turns, self.max_turns, self.max_tokens)
        least, most = self.bounds
        turns = min(max(max_turns or 2 * self.min_turns, least), most)
        return WindowRule(self.policy, self.min_turns, turns, self.max_tokens)


def step(rule: WindowRule) -> int:
    """How many turns one cut drops."""
    return rule.max_turns - rule.min_turns + 1


def stateless_cut(turn_count: int, rule: WindowRule) -> int:
    """The cut where none is stored: a pure function of how many turns there are."""
    if rule.policy == "all":
        return 0
    excess = max(0, turn_count - rule.max_turns)
    if rule.policy == "last_n":
        return excess
    return -(-excess // step(rule)) * step(rule)


def advance(cut: int, tokens: Sequence[int], rule: WindowRule) -> int:
    """The cut for the next prompt, given the stored one and the tokens of each turn since.

    `tokens[i]` belongs to turn `cut + i`; their number says how many turns the window holds now.
    Never smaller than `cut`. Moves by whole steps, then by the ceiling; both only at a turn's end.
    """
    turn_count = cut + len(tokens)
    moved = max(cut, _advance_by_turns(cut, turn_count, rule))
    if not rule.max_tokens:
        return moved
    return _advance_by_tokens(moved, tokens[moved - cut :], rule)


def branch_cut(cut: int, keep: int, rule: WindowRule) -> int:
    """The cut for a branch that keeps the first `keep` turns of a dialogue whose stored cut is `cut`.

    The stored one, so long as enough turns lie behind it. Else it goes back to where a dialogue of that
    length is cut, which is also where the prompts of that time began: their KV may still lie on the node.
    """
    least = rule.max_turns if rule.policy == "last_n" else rule.min_turns
    return cut if keep - cut >= least else min(cut, stateless_cut(keep, rule))


def within(rule: WindowRule, room: int) -> WindowRule:
    """The rule under a ceiling that leaves an answer possible: `room` tokens for the window's turns."""
    ceiling = max(1, room)
    return replace(rule, max_tokens=min(rule.max_tokens or ceiling, ceiling))


def exceeds_ceiling(tokens: Sequence[int], rule: WindowRule) -> bool:
    """Whether the last `min_turns` turns alone are over the ceiling, so that fewer must be shown."""
    return bool(rule.max_tokens) and sum(tokens[-rule.min_turns :]) > rule.max_tokens


def _advance_by_turns(cut: int, turn_count: int, rule: WindowRule) -> int:
    if rule.policy == "all":
        return cut
    if rule.policy == "last_n":
        return max(cut, turn_count - rule.max_turns)
    excess = max(0, turn_count - cut - rule.max_turns)
    return cut + -(-excess // step(rule)) * step(rule)


def _advance_by_tokens(cut: int, tokens: Sequence[int], rule: WindowRule) -> int:
    """Over the ceiling, cut back in proportion (min/max), so that the next cut is again some turns away."""
    total = sum(tokens)
    if total <= rule.max_tokens:
        return cut
    target = rule.max_tokens * rule.min_turns // rule.max_turns
    dropped = 0
    while total > rule.max_tokens or (total > target and len(tokens) - dropped > rule.min_turns):
        total -= tokens[dropped]
        dropped += 1
        if dropped == len(tokens):
            break
    return cut + dropped
