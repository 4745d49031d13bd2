"""One moment by two clocks. Pure.

What is stored, shown, or shared with other replicas is in Unix seconds. What is measured within a process
(ages, waits, rates) is in steady seconds: a wall clock may be set by an hour in either direction, and then
whatever is older would be young, or the other way round.
"""

import msgspec


class Moment(msgspec.Struct, frozen=True, gc=False):
    """Now, by both."""

    steady: float
    wall: float

    def of(self, stored: float) -> float:
        """The steady time of a moment stored in Unix seconds; after now, if a clock was set back since."""
        return self.steady - (self.wall - stored)
