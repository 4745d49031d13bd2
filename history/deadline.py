"""Time limits around what tasks do: `asyncio.timeout` without a timer of its own for each of them."""

import asyncio
from types import TracebackType
from typing import Self

_LOOK_EVERY_S = 0.05


class Deadlines:
    """The limits of one event loop's tasks, looked at a few times a second: each may end that much later."""

    def __init__(self) -> None:
        self._pending: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> "Deadline":
        """A limit for one block: after so many seconds its task is cancelled, and the block raises
        `TimeoutError`.
        """
        return Deadline(self, seconds)

    def begin(self, deadline: "Deadline") -> None:
        """For `Deadline`: watch this one."""
        self._pending[deadline] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def end(self, deadline: "Deadline") -> None:
        """For `Deadline`: its block was left."""
        self._pending.pop(deadline, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for deadline in [one for one in self._pending if one.until <= now]:
            self._pending.pop(deadline)
            deadline.strike()
        self._timer = loop.call_later(_LOOK_EVERY_S, self._look) if self._pending else None


class Deadline:
    """One limit, used once. A cancellation that came from elsewhere stays one."""

    __slots__ = ("_before", "_deadlines", "_has_struck", "_seconds", "_task", "until")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._has_struck = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self.until = asyncio.get_running_loop().time() + self._seconds
        """By the event loop's clock."""
        self._deadlines.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.end(self)
        if self._has_struck and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def strike(self) -> None:
        """The time is over."""
        self._has_struck = True
        self._task.cancel()
