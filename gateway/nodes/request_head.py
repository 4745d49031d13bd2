"""What every request to a node begins with. Pure but for the pool that it describes."""

from gateway.nodes.connection import NodePool
from gateway.routing.node import NodeSpec


def request_head(method: str, path: str, pool: NodePool, api_key: str) -> bytes:
    """Request line and the headers that every request to a node has."""
    authorization = b"authorization: Bearer %b\r\n" % api_key.encode() if api_key else b""
    line = f"{method} {pool.base_path}{path} HTTP/1.1\r\n".encode()
    return b"%bhost: %b\r\naccept: */*\r\n%b%b" % (line, pool.host_header, pool.headers, authorization)


def own_headers(spec: NodeSpec) -> bytes:
    """What only this node's requests have: the data-parallel rank that shall answer."""
    return b"" if spec.rank is None else b"x-data-parallel-rank: %d\r\n" % spec.rank
