"""What tells a copy of archived turns from the turns themselves, once some were replaced. Pure.

Turns behind the cut never change, until a branch replaces some of them. Copies of them are kept elsewhere
(the index of recall, on every replica), and the cut alone does not tell whether a copy is still true: a
branch may move the cut back, and it comes forward again over other turns. So the conversation counts how
often that happened.
"""

import msgspec


class ArchiveMark(msgspec.Struct, frozen=True, array_like=True):
    """While `number` is the same, the turns before the cut are the same at their positions."""

    number: int = 0
    reach: int = 0
    """The furthest that the cut came under this number."""


def marked(mark: ArchiveMark, *, keep: int, cut: int) -> ArchiveMark:
    """The mark after a commit that keeps the first `keep` turns of the branch and leaves the cut at `cut`."""
    if keep < mark.reach:
        return ArchiveMark(number=mark.number + 1, reach=cut)
    return ArchiveMark(number=mark.number, reach=max(mark.reach, cut))
