"""Where one node's KV events are to be had. A fact about the node; `nodes.kv_feed` follows it."""

import msgspec


class KvSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a node publishes its KV events. Raises ValueError for what cannot be connected to."""

    endpoint: str
    """`tcp://HOST:PORT` or `ipc://PATH`; of a data-parallel rank its own (engines add it to the port)."""
    replay: str = ""
    """Where missed batches can be asked for; empty: nowhere, and every loss makes the node suspect."""
    topic: str = ""
    """Only topics that begin like this."""
    listen: bool = False
    """Listen on the endpoint instead, for an engine that connects to it."""

    def __post_init__(self) -> None:
        for endpoint in filter(None, (self.endpoint, self.replay)):
            if not endpoint.startswith(("tcp://", "ipc://")):
                raise ValueError(f"KV events come over tcp://HOST:PORT or ipc://PATH, not {endpoint!r}")
        for endpoint in (self.replay,) if self.listen else (self.endpoint, self.replay):
            if "*" in endpoint:
                raise ValueError(f"{endpoint!r} is where the engine listens; name its host instead of *")
