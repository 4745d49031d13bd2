"""The windows that this replica has seen, so that the store tells it only what is new.

A window is known as of one commit. The store's scripts compare that commit with the newest: if it is the
same, they send no turn at all; if turns were only added since, by whichever replica, they send these. So a
copy is never trusted, only asked about, and neither bytes nor decoding grow with the window.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from history.conversation import Conversation, ConversationKey, Turn

_TURN_BYTES = 700
"""What a turn takes in memory beside its messages: the records around them."""
_WINDOW_BYTES = 2_000


class Known(msgspec.Struct, frozen=True, gc=False):
    """A conversation and the turns behind its cut, as they were after `commit`; nothing without one."""

    commit: bytes = b""
    conversation: Conversation = Conversation()
    turns: tuple[Turn, ...] = ()
    size: int = 0
    """About how many bytes it takes."""

    def with_newer(
        self, commit: bytes, conversation: Conversation, turns: Sequence[Turn], *, start: int
    ) -> "Known":
        """The same later on; `turns` are those from `start` on, and what stands before them is known."""
        cut, first = conversation.cut, self.conversation.cut
        if first <= start <= first + len(self.turns):
            window = (*self.turns[: start - first], *turns)[cut - first :]
        else:
            window = tuple(turns)[cut - start :]
        if len(window) == len(self.turns) + len(turns):
            return Known(commit, conversation, window, self.size + sum(map(_size, turns)))
        return Known(commit, conversation, window, _WINDOW_BYTES + sum(map(_size, window)))


class KnownWindows:
    """At most `max_bytes` of them; what was not used for `idle_s` goes, as does what was used longest ago.

    So what was erased on another replica does not stay here. `clock`: seconds, monotonic.
    """

    def __init__(self, *, max_bytes: int, idle_s: float, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._clock = clock
        self._windows: OrderedDict[ConversationKey, tuple[Known, float]] = OrderedDict()
        self.bytes = 0
        """What they take, about."""

    def __len__(self) -> int:
        return len(self._windows)

    def get(self, key: ConversationKey) -> Known:
        """What is known of this conversation's window, perhaps nothing."""
        found = self._windows.get(key)
        return found[0] if found else _NOTHING

    def put(self, key: ConversationKey, known: Known) -> None:
        """Keep it from now on; without a commit there is nothing to keep."""
        now = self._clock()
        self.drop(key)
        if not known.commit:
            return
        self._windows[key] = (known, now)
        self.bytes += known.size
        while self._windows:
            oldest, (_, used_at) = next(iter(self._windows.items()))
            if self.bytes <= self._max_bytes and used_at > now - self._idle_s:
                break
            self.drop(oldest)

    def drop(self, key: ConversationKey) -> None:
        """Know nothing of it."""
        if found := self._windows.pop(key, None):
            self.bytes -= found[0].size


_NOTHING = Known()


def _size(turn: Turn) -> int:
    return _TURN_BYTES + sum(map(len, turn.messages))
