"""Where a dialogue that a client sends in full, or a window of it, meets the dialogue that is stored.

Everything up to the client's last assistant message is *known*: it should be stored already. What follows
is new by definition and never dropped, so a new "hi" equal to the first turn does not vanish. The known
part is looked up anywhere in the stored dialogue, message by message:

1. the longest known part that ends exactly where the stored dialogue ends is a plain continuation;
2. otherwise the longest match wins (the latest of equals): what differs behind it is a new branch;
3. no match at all is a mismatch.

O(known + stored) by the Z-function, so that repetitive dialogues cost no more than others.
"""

from collections.abc import Sequence

import msgspec

from history.message import DIGEST_SIZE


class Alignment(msgspec.Struct, frozen=True):
    """`matched` known messages are stored already; they end before stored message `end`."""

    matched: int
    end: int


def align(known: Sequence[bytes], stored: Sequence[bytes]) -> Alignment | None:
    """Match the digests of the known messages against those of the stored ones; None: mismatch."""
    lengths = _match_lengths(known, stored)
    best: Alignment | None = None
    for start, matched in enumerate(lengths):
        if not matched:
            continue
        end = start + matched
        if matched == len(known) and end == len(stored):
            return Alignment(matched=matched, end=end)
        if best is None or matched >= best.matched:
            best = Alignment(matched=matched, end=end)
    return best


def split_digests(blob: bytes) -> list[bytes]:
    """The messages' digests of one turn."""
    return [blob[at : at + DIGEST_SIZE] for at in range(0, len(blob), DIGEST_SIZE)]


def _match_lengths(known: Sequence[bytes], stored: Sequence[bytes]) -> list[int]:
    """For each stored position, how many known messages match from there on (Gusfield's Z-algorithm)."""
    joined: list[bytes | None] = [*known, None, *stored]
    lengths = [0] * len(joined)
    left = right = 0
    for at in range(1, len(joined)):
        length = min(right - at, lengths[at - left]) if at < right else 0
        while at + length < len(joined) and joined[length] == joined[at + length]:
            length += 1
        lengths[at] = length
        if at + length > right:
            left, right = at, at + length
    return lengths[len(known) + 1 :]
