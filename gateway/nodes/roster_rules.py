"""How nodes are met and left. Apart from `roster`, which has more to import than settings should."""

import msgspec


class RosterRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How nodes are met and left."""

    trial: bool = True
    """Send a node two tiny requests when it is met, where only these show what its settings lack."""
    drain_s: float = 600.0
    """How long requests on a node that is removed may take to end."""
