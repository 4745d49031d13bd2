"""A place that tells of nodes, as an operator names it: a name with addresses, a Kubernetes service. Pure."""

import msgspec

from gateway.routing.node import Engine, NodeSpec


class NodeSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes that are all alike. Raises ValueError unless exactly one of `dns` and `kubernetes` is set."""

    engine: Engine
    dns: str = ""
    """A name; its A and AAAA records are nodes."""
    kubernetes: str = ""
    """`NAMESPACE/SERVICE`; the addresses in its EndpointSlices are nodes. The pod's service account has to be
    allowed to list `endpointslices` there.
    """
    port: int = 0
    """Where the nodes listen; 0, for Kubernetes only: the first port that a slice names."""
    models: tuple[str, ...] = ()
    weight: float = 1.0
    max_running: int = 0
    api_key: str = ""
    every_s: float = 5.0
    """How often it is asked."""

    def __post_init__(self) -> None:
        if bool(self.dns) == bool(self.kubernetes):
            raise ValueError("a source of nodes has either dns or kubernetes")
        if self.dns and not self.port:
            raise ValueError("addresses of a name need a port")

    @property
    def origin(self) -> str:
        """What its nodes come from, for operators."""
        return f"the name {self.dns}" if self.dns else f"the service {self.kubernetes}"

    def node(self, address: str, port: int) -> NodeSpec:
        """The node at one of its addresses."""
        host = f"[{address}]" if ":" in address else address
        return NodeSpec(
            engine=self.engine,
            url=f"http://{host}:{port}",
            models=self.models,
            weight=self.weight,
            max_running=self.max_running,
            api_key=self.api_key,
        )
