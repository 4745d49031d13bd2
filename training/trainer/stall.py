"""Whether a run has come to a halt without ending. Pure.

Loading, tokenising and a long step write no log but use the processor; a dead lock does neither. Waiting
for a GPU spins on a core, so that a run on one is not taken for halted.
"""

from dataclasses import dataclass

NOTABLE_TICKS = 5
"""Of the processor, between two looks: less is housekeeping (a hundred are a second)."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """The last sign of life, and what was seen then."""

    at: float
    log_bytes: int
    cpu_ticks: int


def felt(before: Pulse | None, *, log_bytes: int, cpu_ticks: int, now: float) -> Pulse:
    """The pulse after another look."""
    if before is None or log_bytes != before.log_bytes:
        return Pulse(now, log_bytes, cpu_ticks)
    if cpu_ticks < before.cpu_ticks or cpu_ticks >= before.cpu_ticks + NOTABLE_TICKS:
        return Pulse(now, log_bytes, cpu_ticks)
    return before


def is_stalled(pulse: Pulse, *, now: float, after_s: float) -> bool:
    """Nothing was felt for `after_s` seconds."""
    return now - pulse.at >= after_s
