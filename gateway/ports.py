"""The doors of the chat use case: the client on one side, API keys on the other."""

from typing import Protocol

from gateway.keys.key import Caller

Headers = tuple[tuple[bytes, bytes], ...]


class Pausable(Protocol):
    """A source of bytes that can be held up."""

    def set_reading(self, *, on: bool) -> None:
        """Stop or go on reading."""


class Reply(Protocol):
    """The answer to one client, written as it comes about. Nothing here waits.

    A client that leaves cancels the task that answers it, until `hold_together`: what follows then is
    finished first.
    """

    @property
    def is_started(self) -> bool:
        """Whether the status line is out: from then on nothing can be taken back."""

    @property
    def is_finished(self) -> bool:
        """Whether the body is complete: what is written now would be part of the next answer."""

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """Send the head. Without a length the body is chunked."""

    def write(self, data: bytes) -> None:
        """Send a piece of body."""

    def finish(self) -> None:
        """The body is complete."""

    def attach(self, source: Pausable | None) -> None:
        """Hold up this source while the client does not keep up."""

    def hold_together(self) -> None:
        """From here on the client's leaving does not cancel."""


class Authenticator(Protocol):
    """Who is calling."""

    def authenticate(self, authorization: bytes | None, *, now: float) -> Caller:
        """Raises `InvalidKey`. `now` is Unix time."""
