"""What the load client is asked to do and what it reports: the facts that cross the process border."""

import msgspec

PROBE_CONNECTIONS = 4


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One closed-loop load: every connection sends its share of the requests, each after the previous reply.

    `ports` are used in turn, connection by connection. `probe_ports` are called directly by a few connections
    more while the load runs: what they wait for the first byte is the upstream's and the machine's own share.
    """

    ports: tuple[int, ...]
    requests: int
    connections: int
    stream: bool
    model: str
    headers: dict[str, str] = {}
    dialogue: str = ""  # prefix of the conversations' ids: each connection is one conversation
    first_turn: int = 0  # number of each connection's first request; 0 opens the conversation
    probe_ports: tuple[int, ...] = ()
    lockstep: bool = False  # all streams start, and so tick, together
    deadline_s: float = 120.0

    @property
    def requests_per_connection(self) -> int:
        """Each connection's share, rounded up so that all do the same."""
        return -(-self.requests // self.connections)


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """Times in milliseconds from the request's write to the first byte of the body and to the reply's end."""

    replies: int
    failures: int
    first_failure: str
    wall_s: float
    first_byte_ms: list[float]
    total_ms: list[float]
    probe_first_byte_ms: list[float]
