"""What can go wrong with the list of nodes, as leaves of the gateway's own tree.

GatewayError
├── ClientFault
│   ├── NodeNotFound        no node has this id
│   ├── NodeExists          there is a node with this id
│   ├── NodeNotOurs         the configuration or a name server says that it is there
│   ├── TooManyNodes        the store holds as many as a replica will keep
│   └── AdapterRefused      an adapter cannot be loaded or unloaded on that node
└── RosterStoreUnavailable  the store did not answer
"""

from gateway.errors import ClientFault, GatewayError


class NodeNotFound(ClientFault):
    """No node has this id."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no node {name!r}; `friendo nodes list` shows their ids")


class NodeExists(ClientFault):
    """There is a node with this id."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a node {name!r} already; remove it first, or give this one another id")


class NodeNotOurs(ClientFault):
    """The node was not added by an administrator, and so cannot be removed by one."""

    def __init__(self, name: str, origin: str) -> None:
        super().__init__(f"node {name!r} comes from {origin}: take it out there, and until then drain it")


class TooManyNodes(ClientFault):
    """Every replica polls all nodes, so their number is bounded."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} nodes were added, which is the limit; remove some: `friendo nodes remove`")


class AdapterRefused(ClientFault):
    """An adapter cannot be loaded or unloaded there; the text says what to change."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class RosterStoreUnavailable(GatewayError):
    """The store of nodes did not answer; what it did is unknown."""
