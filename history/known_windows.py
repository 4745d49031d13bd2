"""The windows that this replica has seen, so that the store tells it only what is new.

A window is known as of one commit. The store's scripts compare that commit with the newest: if it is the
same, they send no turn at all; if turns were only added since, by whichever replica, they send these. So a
copy is never trusted, only asked about, and neither bytes nor decoding grow with the window. See ADR 0015.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from history.conversation import Conversation, ConversationKey, Turn
from history.memory import memory_size

_TURN_BYTES = 700
"""What a turn takes in memory beside its messages: the records around them."""
_MEMORY_BYTES = 1_000
_WINDOW_BYTES = 2_000


class Version(NamedTuple):
    """What the store compares: the newest commit, and the newest version of the memory, by its digest."""

    commit: bytes = b""
    memory: bytes = b""


class Known(msgspec.Struct, frozen=True):
    """A conversation and the turns behind its cut, as they were at a version; nothing without a commit."""

    version: Version = Version()
    conversation: Conversation = Conversation()
    turns: tuple[Turn, ...] = ()
    turn_bytes: int = 0
    """About how many bytes the turns take."""

    def with_newer(
        self, version: Version, conversation: Conversation, turns: Sequence[Turn], *, start: int
    ) -> "Known":
        """The same later on; `turns` are those from `start` on, and what stands before them is known."""
        cut, first = conversation.cut, self.conversation.cut
        if first <= start <= first + len(self.turns):
            window = (*self.turns[: start - first], *turns)[cut - first :]
        else:
            window = tuple(turns)[cut - start :]
        is_longer = len(window) == len(self.turns) + len(turns)
        size = self.turn_bytes + _sum(turns) if is_longer else _sum(window)
        return Known(version, conversation, window, size)

    @property
    def size(self) -> int:
        """About how many bytes all of it takes."""
        one = self.conversation
        memories = sum(_MEMORY_BYTES + memory_size(memory) for memory in one.memories)
        return _WINDOW_BYTES + len(one.persona) + len(one.metadata) + memories + self.turn_bytes


class KnownWindows:
    """At most `max_bytes` of them; what was used longest ago goes first. `clock`: seconds, monotonic.

    What was not used for `idle_s` goes at the next `prune`, and what was erased on another replica with it.
    """

    def __init__(self, *, max_bytes: int, idle_s: float, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._clock = clock
        self._windows: OrderedDict[ConversationKey, _Kept] = OrderedDict()
        self.bytes = 0
        """What they take, about."""

    def __len__(self) -> int:
        return len(self._windows)

    def get(self, key: ConversationKey) -> Known:
        """What is known of this conversation's window, perhaps nothing."""
        found = self._windows.get(key)
        return found.known if found else _NOTHING

    def put(self, key: ConversationKey, known: Known) -> None:
        """Keep it from now on; without a commit there is nothing to keep."""
        self.drop(key)
        if known.version.commit:
            kept = self._windows[key] = _Kept(known, known.size, self._clock())
            self.bytes += kept.size
            self.prune()

    def prune(self) -> None:
        """Drop what was used longest ago, until the bounds hold."""
        since = self._clock() - self._idle_s
        while self._windows:
            oldest, kept = next(iter(self._windows.items()))
            if self.bytes <= self._max_bytes and kept.used_at > since:
                break
            self.drop(oldest)

    def drop(self, key: ConversationKey) -> None:
        """Know nothing of it."""
        if found := self._windows.pop(key, None):
            self.bytes -= found.size


class _Kept(NamedTuple):
    known: Known
    size: int
    used_at: float


_NOTHING = Known()


def _sum(turns: Iterable[Turn]) -> int:
    return sum(_TURN_BYTES + sum(map(len, turn.messages)) for turn in turns)
