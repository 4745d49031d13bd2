"""What the stores said when they failed, in the log: each text once a minute, few texts a minute.

A store that is away or full fails every request, and the log is there to say why, not how often. What a
server quotes in an error can be a command's argument (Redis: "unknown command 'X', with args beginning
with: …"), and so an id that a client chose: nothing that stands in quotes is logged.
"""

import re

import structlog

from history.errors import ConversationErased, LeaseLost, StoreFault
from training.errors import JobConflict
from training.errors import StoreFault as TrainingStoreFault

_EVERY_S = 60.0
_TEXTS = 8
_LONGEST = 300
_QUOTED = re.compile(r"""['"].*['"]""", re.DOTALL)
_ARGUMENTS = re.compile(r"with args beginning with.*", re.DOTALL)

_OF_OTHERS = (LeaseLost, ConversationErased, JobConflict)
_OF_DIALOGUES = "the store of dialogues failed"
_OF_TRAINING = "the store of training jobs and files failed"

log = structlog.get_logger()


class FaultLog:
    """Logs faults of the store, and counts those that it leaves out."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._said: set[tuple[str, str]] = set()
        self._left_out = 0

    def note(self, fault: Exception, *, now: float) -> None:
        """Log a fault of a store unless its like was logged within the last minute. `now` is in seconds.

        Nothing else is logged, nor what a writer suffers by others and not by the store.
        """
        if not isinstance(fault, StoreFault | TrainingStoreFault) or isinstance(fault, _OF_OTHERS):
            return
        if now - self._since >= _EVERY_S:
            if self._left_out:
                log.warning("more faults of the store", left_out=self._left_out)
            self._since, self._left_out = now, 0
            self._said.clear()
        said = (type(fault).__name__, without_quotes(str(fault)))
        if said in self._said or len(self._said) >= _TEXTS:
            self._left_out += 1
            return
        self._said.add(said)
        event = _OF_DIALOGUES if isinstance(fault, StoreFault) else _OF_TRAINING
        log.error(event, fault=said[0], text=said[1])


def without_quotes(text: str) -> str:
    """A server's error without what it quotes, and bounded."""
    return _QUOTED.sub("'…'", _ARGUMENTS.sub("…", text))[:_LONGEST]
