"""What can go wrong with rollouts, as leaves of the gateway's own tree.

GatewayError
├── ClientFault
│   ├── RolloutNotFound     no alias has this name
│   └── RolloutRefused      it cannot be done as things stand; the text says what to change
└── RolloutStoreUnavailable the store did not answer
"""

from gateway.errors import ClientFault, GatewayError


class RolloutNotFound(ClientFault):
    """No alias has this name."""

    def __init__(self, alias: str) -> None:
        super().__init__(f"there is no rollout of {alias!r}; `friendo rollout list` shows them")


class RolloutRefused(ClientFault):
    """It cannot be done as things stand. `status` is 400 for a request at fault, 409 for a wrong moment."""

    def __init__(self, message: str, *, status: int = 409) -> None:
        super().__init__(message)
        self.status = status


class RolloutStoreUnavailable(GatewayError):
    """The store of rollouts did not answer; what it did is unknown."""
