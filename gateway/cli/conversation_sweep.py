"""`friendo conversations sweep`: what each tenant has, and what expired conversations left in the archive."""

from gateway.app import store_sweeper
from gateway.cli.conversation_store import opened
from history.sweeper import Swept


async def swept(redis: str | None, *, dry: bool, even_if_empty: bool) -> Swept:
    """Look at every conversation; unless `dry`, set the totals right and clear the archive.

    Raises `BadOption`, `StoreUnavailable`.
    """
    async with opened(redis) as place:
        sweeper = store_sweeper(place.settings, place.store, place.archive, counts=not dry)
        return await sweeper.sweep(removes=not dry, even_if_empty=even_if_empty)


def told(swept_: Swept, *, dry: bool) -> list[str]:
    """What came of it, in lines."""
    lines = [f"{'TENANT':<24} {'CONVERSATIONS':>13} {'TURNS':>12} {'BYTES':>16}"]
    for tenant, found in swept_.tenants.items():
        stored = found.stored
        lines.append(f"{tenant:<24} {found.conversations:>13} {stored.turns:>12} {stored.bytes:>16}")
    if swept_.refused:
        lines.append(
            f"The store holds no conversation at all, so the archive's {swept_.refused} were left alone; "
            "if that is right, say --even-if-empty."
        )
    elif dry:
        lines.append(f"{swept_.folders} expired conversations would leave the archive.")
    else:
        lines.append(f"{swept_.folders} expired conversations left the archive, {swept_.pieces} pieces.")
    return lines
