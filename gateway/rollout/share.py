"""Which version a conversation gets: a function of its name, what it has, and the record. Pure.

Every replica decides alike without talking. A conversation that begins is drawn once per trial, so a wider
share holds everybody whom the narrower one held. One that has a version keeps it while that is live.
"""

from typing import Literal

import xxhash

from gateway.rollout.record import Rollout

Moment = Literal["begins", "goes_on", "is_open"]
"""A dialogue's first turn, a later one, or one in the middle of a turn: a tool's result comes."""

_SEATS = float(2**64)


def seat(tenant: str, name: str, version: str) -> float:
    """Where a conversation, or a user, stands in a trial's draw: 0 to 1, evenly."""
    text = f"{tenant}\0{name}\0{version}"
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) / _SEATS


def drawn(record: Rollout, tenant: str, name: str) -> str:
    """The version that begins with this name."""
    trial = record.trial
    if trial is None or not trial.share:
        return record.current.name
    is_in = seat(tenant, name, trial.version.name) < trial.share
    return trial.version.name if is_in else record.current.name


def chosen(
    record: Rollout, tenant: str, name: str, *, has: str, moment: Moment, is_cold: bool = False
) -> str:
    """The version for a conversation's next turn. `has`: the one it has; empty: none that is known.

    `is_cold`: nothing of it is cached any more, so that moving costs nothing.
    """
    if moment == "begins":
        return drawn(record, tenant, name)
    if has == record.current.name:
        return has
    if moment == "is_open" and any(one.name == has for one in record.versions):
        return has  # never between a call of a tool and its result
    if any(one.name == has for one in record.live):
        return has
    if not is_cold and any(one.name == has for one in record.earlier):
        return has  # until the new prefix is warm
    return record.current.name


def home(record: Rollout, has: str) -> str:
    """Where a conversation with this version belongs in the end; another than its own: it is to be moved."""
    return has if any(one.name == has for one in record.live) else record.current.name


def in_order(record: Rollout, wanted: str) -> tuple[str, ...]:
    """The versions to try where nobody serves the wanted one, best first.

    A whole model that was taken back answers until the first node is restarted with the one before.
    """
    models = [one.version for one in reversed(record.leaving) if one.version.kind == "model"]
    others = [one.name for one in (record.current, *record.live, *record.earlier, *models)]
    return tuple(dict.fromkeys((wanted, *others)))
