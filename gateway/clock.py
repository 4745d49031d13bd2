"""The two clocks of a process: the one that others understand, and one that nobody sets (`moment`)."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.moment import Moment


@dataclass(frozen=True, slots=True)
class Clock:
    """Both."""

    wall: Callable[[], float] = time.time
    """Unix seconds."""
    steady: Callable[[], float] = time.monotonic
    """Seconds since some moment; they only grow."""

    def now(self) -> Moment:
        """This moment."""
        return Moment(steady=self.steady(), wall=self.wall())
