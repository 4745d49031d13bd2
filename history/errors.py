"""What can go wrong in a dialogue, first forked by whose fault it is.

HistoryError
├── CallerFault            the request cannot be served as it stands
│   ├── InvalidMessages        a message is malformed or out of place
│   ├── ConversationNotFound   an id that must exist does not
│   ├── ConversationMismatch   the dialogue sent is not the dialogue stored
│   ├── ConversationBusy       an answer is being written and waiting is refused or too long
│   ├── ConversationFull       it has as many turns or bytes as it may have
│   └── QuotaExceeded          its tenant has
└── StoreFault             the store could not do its part
    ├── StoreUnavailable       it did not answer
    ├── LeaseLost              another writer holds the conversation now
    └── ConversationErased     it was erased, or expired, while this turn was being written
        └── UserErased         its user was erased within a day
"""


class HistoryError(Exception):
    """The root of everything this package raises on purpose."""


class CallerFault(HistoryError):
    """The request is at fault; nothing was changed."""


class InvalidMessages(CallerFault):
    """A message is malformed or out of place. `param` is its path in the request."""

    def __init__(self, reason: str, *, param: str = "messages") -> None:
        super().__init__(reason)
        self.reason = reason
        self.param = param


class ConversationNotFound(CallerFault):
    """The id has to exist and does not."""


class ConversationMismatch(CallerFault):
    """The dialogue sent matches nothing that is stored."""


class ConversationBusy(CallerFault):
    """Another answer is being written. `retry_after_ms` says when asking again makes sense."""

    def __init__(self, reason: str, *, retry_after_ms: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_ms = retry_after_ms


class ConversationFull(CallerFault):
    """The conversation has as many turns or bytes as it may have."""


class QuotaExceeded(CallerFault):
    """Its tenant has as many turns or bytes stored as it may have."""


class StoreFault(HistoryError):
    """The store could not do its part."""


class StoreUnavailable(StoreFault):
    """The store did not answer in time or refused the connection."""


class LeaseLost(StoreFault):
    """The lease ran out and another writer may have taken over; nothing was written."""


class ConversationErased(StoreFault):
    """The conversation was erased, or expired, while its turn was being written; nothing was written."""


class UserErased(ConversationErased):
    """The user was erased, so that nothing new is kept for it for a day; nothing was written."""


class TurnsArchived(StoreFault):
    """The change goes back to turns that are in the archive; `base`: how many. Restore them and try again."""

    def __init__(self, base: int) -> None:
        super().__init__(f"the first {base} turns are in the archive")
        self.base = base
