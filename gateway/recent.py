"""Which conversations spoke lately, and on which node: those worth warming elsewhere when it is lost."""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from gateway.request import ChatRequest
from history.conversation import ConversationKey

_KEPT = 10_000


class Seen(msgspec.Struct, frozen=True):
    """A conversation's last turn here."""

    frame: ChatRequest
    node: str
    at: float
    """Steady seconds."""
    version: str = ""
    """What it has of the model that it asks for, where that is an alias."""


class Recent:
    """The newest conversations of this replica, in the order in which they spoke."""

    def __init__(self) -> None:
        self._seen: OrderedDict[ConversationKey, Seen] = OrderedDict()

    def note(self, key: ConversationKey, seen: Seen) -> None:
        """It spoke now."""
        self._seen[key] = seen
        self._seen.move_to_end(key)
        if len(self._seen) > _KEPT:
            self._seen.popitem(last=False)

    def of(self, model: str, *, since: float) -> Iterator[tuple[ConversationKey, Seen]]:
        """Those that asked for this model and spoke since then, the newest first."""
        for key in reversed(self._seen):
            seen = self._seen[key]
            if seen.at < since:
                return
            if seen.frame.model == model:
                yield key, seen

    def on(self, node: str, *, since: float) -> Iterator[tuple[ConversationKey, Seen]]:
        """Those whose KV is on this node and that spoke since then, the newest first."""
        for key in reversed(self._seen):
            seen = self._seen[key]
            if seen.at < since:
                return
            if seen.node == node:
                yield key, seen
