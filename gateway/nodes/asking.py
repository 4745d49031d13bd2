"""One question to one node, answered whole or not at all.

A node may answer anything, and none of it may end the process or hold it up: whatever goes wrong between
here and there is a `NodeFault`.
"""

import asyncio
import ssl

from gateway.errors import NodeBroke, NodeFault, NodeRefused, NodeSilent
from gateway.nodes.body import BodySink
from gateway.nodes.connection import NodePool, Patience
from gateway.nodes.request_head import own_headers, request_head
from gateway.routing.node import NodeSpec

_WITHIN_S = 10.0
"""For one path in all: a body that comes by the byte would hold up the polling for ever."""
_PATIENCE = Patience(connect_s=2.0, first_byte_s=_WITHIN_S / 2, idle_s=_WITHIN_S / 2)
_MAX_BODY = 8 * 1024 * 1024


class Answered(NodeBroke):
    """A question was answered with a status other than 200."""

    def __init__(self, path: str, status: int, body: bytes = b"") -> None:
        super().__init__(f"{path} answered {status}")
        self.status = status
        self.body = body
        """For the machine to read, never for a log: engines repeat what they were sent."""


class OtherModels(NodeBroke):
    """The node does not serve what it is said to."""


class Asker:
    """Asks one node, on connections of its own: a crowd of requests does not hold up its polling."""

    def __init__(self, spec: NodeSpec, *, tls: ssl.SSLContext | None = None) -> None:
        self._pool = NodePool(spec.url, _PATIENCE, limit=2, headers=own_headers(spec), tls=tls)
        self._spec = spec

    async def get(self, path: str, limit: int = _MAX_BODY) -> bytes:
        """The body of a 200 of at most `limit` bytes. Raises a `NodeFault` for everything else."""
        return await self._answered("GET", path, b"", limit, _WITHIN_S)

    async def post(self, path: str, body: bytes, *, within_s: float = _WITHIN_S) -> bytes:
        """The body of the 200 that answers this JSON. Raises a `NodeFault` for everything else."""
        return await self._answered("POST", path, body, _MAX_BODY, within_s)

    def close(self) -> None:
        """Drop the connections."""
        self._pool.close()

    async def _answered(self, method: str, path: str, sent: bytes, limit: int, within_s: float) -> bytes:
        try:
            async with asyncio.timeout(within_s):
                status, body = await self._exchange(method, path, sent, limit)
        except TimeoutError as error:
            raise NodeSilent(f"{path} was not answered whole within {within_s:g} s") from error
        if status != 200:
            raise Answered(path, status, body)
        return body

    async def _exchange(self, method: str, path: str, sent: bytes, limit: int) -> tuple[int, bytes]:
        pool = self._pool
        request = request_head(method, path, pool, self._spec.api_key)
        if sent:
            request += b"content-type: application/json\r\ncontent-length: %d\r\n" % len(sent)
        request = b"%b\r\n%b" % (request, sent)
        exchange = await pool.send(request)
        try:
            try:
                head = await exchange.head
            except NodeBroke:
                if exchange.got_bytes or not exchange.is_reused:
                    raise
                exchange = await pool.resend(request)  # it had been idle for too long: no failure
                head = await exchange.head
            sink = BodySink(limit=limit)
            exchange.pump(sink)
            await exchange.done
        finally:
            exchange.abort()
        return head.status, sink.value()


def advice(fault: NodeFault, spec: NodeSpec) -> str:
    """What an operator should look at."""
    match fault:
        case NodeRefused():
            check = "is it running, and is this its address?"
        case NodeSilent():
            check = "is it overloaded, or still loading its model?"
        case OtherModels():
            check = "the models that the configuration names for it"
        case Answered(status=401 | 403):
            check = "the api_key that the configuration has for it"
        case Answered(status=503):
            check = "is it still loading its model?"
        case Answered(status=status) if 300 <= status < 400:
            check = "redirects are not followed: what is the address that it leads to?"
        case _:
            check = f"does an inference server listen there, and is its engine {spec.engine}?"
    return check
