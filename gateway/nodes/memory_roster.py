"""The store of nodes in a dictionary: for one process that forgets. It passes the contract."""

from gateway.nodes.errors import NodeExists, NodeNotFound, TooManyNodes
from gateway.nodes.ports import MAX_NODES, Drain, RosterTable
from gateway.routing.node import NodeSpec


class MemoryRoster:
    """A RosterStore of this process alone."""

    def __init__(self, *, max_nodes: int = MAX_NODES) -> None:
        self._max_nodes = max_nodes
        self._specs: dict[str, NodeSpec] = {}
        self._drains: dict[str, Drain] = {}
        self._changes = 0

    async def add(self, spec: NodeSpec) -> None:
        """See RosterStore."""
        if spec.name in self._specs:
            raise NodeExists(spec.name)
        if len(self._specs) >= self._max_nodes:
            raise TooManyNodes(self._max_nodes)
        self._specs[spec.name] = spec
        self._changes += 1

    async def forget(self, name: str) -> None:
        """See RosterStore."""
        if self._specs.pop(name, None) is None:
            raise NodeNotFound(name)
        self._drains.pop(name, None)
        self._changes += 1

    async def drain(self, name: str, drain: Drain) -> None:
        """See RosterStore."""
        if name not in self._drains and len(self._drains) >= self._max_nodes:
            raise TooManyNodes(self._max_nodes)
        self._drains[name] = drain
        self._changes += 1

    async def undrain(self, name: str) -> None:
        """See RosterStore."""
        if self._drains.pop(name, None) is not None:
            self._changes += 1

    async def table(self) -> RosterTable:
        """See RosterStore."""
        return RosterTable(str(self._changes), dict(self._specs), dict(self._drains))

    async def version(self) -> str:
        """See RosterStore."""
        return str(self._changes)
