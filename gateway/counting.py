"""What is counted and swept in the background, and what the log says of it."""

from collections.abc import Coroutine, Iterator

import structlog

from gateway.settings import Settings
from history.allowance import Allowance
from history.errors import StoreFault
from history.sweeper import Sweeper, Swept

log = structlog.get_logger()


def counting(
    settings: Settings, allowance: Allowance, sweeper: Sweeper
) -> Iterator[Coroutine[None, None, None]]:
    """What tenants have, and what expired conversations left behind; nothing where nobody asked for it."""
    hours = settings.history.upkeep.sweep_hours
    if settings.history.limits.counts_tenants:
        yield allowance.run(note_uncounted)
    if hours and sweeper.is_needed:
        yield sweeper.run(hours * 3600, note_sweep)


def note_uncounted(fault: Exception) -> None:
    """Say in the log that tenants' totals stand still, unless the store is away: then turns say so."""
    if not isinstance(fault, StoreFault):
        log.error("tenants' totals are not counted", exc_info=fault)


def note_sweep(came: Swept | Exception) -> None:
    """Say in the log what a sweep has done, or why it could not."""
    if isinstance(came, Exception):
        log.warning("not swept", reason=str(came), exc_info=not isinstance(came, StoreFault) and came)
    elif came.refused:
        log.warning(
            "the store holds no conversation, so nothing was taken from the archive", left=came.refused
        )
    else:
        log.info("swept", tenants=len(came.tenants), folders=came.folders, pieces=came.pieces)
