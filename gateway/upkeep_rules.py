"""How much may be done between turns. Apart from `upkeep`, which has more to import than settings should."""

import msgspec


class UpkeepRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be done in the background."""

    prewarm: bool = True
    """Compute the next prompt's prefix after a cut, on the conversation's node, when that has time."""
    rewarm: int = 64
    """How many conversations are warmed elsewhere when their node is lost; the newest ones."""
    rewarm_within_s: float = 600.0
    """Only those that spoke so lately."""
    workers: int = 4
    queue_limit: int = 1000
    """Conversations that may wait; what comes then is left for their next turn."""
    sweep_hours: float = 24.0
    """How often one of the gateways looks at every key of the store, where there is something to be found:
    tenants' totals to be counted anew, or an archive to be rid of what expired. 0: only by command."""
    idle_wait_s: float = 2.0
    """How long a call waits for its node to have nothing else to do. Then it goes all the same, unless more
    than a few wait there.
    """
