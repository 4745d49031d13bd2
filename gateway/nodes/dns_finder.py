"""Nodes by the addresses of a name, as a Kubernetes headless service or a round-robin name has them.

An address that is not among the answers twice in a row is gone. A name server that does not answer, or does
not know the name, takes nothing away: nodes that are really gone are found out by their health.
"""

import asyncio
import socket
from collections import Counter

import structlog

from gateway.nodes.addresses import is_link_local
from gateway.nodes.discovery import NodeSource
from gateway.nodes.members import Found
from gateway.nodes.ports import MAX_NODES

_WITHIN_S = 5.0
_GONE_AFTER = 2

log = structlog.get_logger()


class DnsFinder:
    """Looks one name up."""

    def __init__(self, source: NodeSource) -> None:
        self._source = source
        self.every_s = source.every_s
        self._missed: Counter[str] = Counter()
        """By address: in how many answers in a row it was not."""
        self._problem = ""

    @property
    def found(self) -> Found:
        """Its addresses, as nodes."""
        source = self._source
        specs = tuple(source.node(address, source.port) for address in sorted(self._missed))
        return Found(source.origin, specs)

    async def look(self) -> None:
        """Look it up once."""
        try:
            async with asyncio.timeout(_WITHIN_S):
                addresses = await self._addresses()
        except (OSError, TimeoutError) as error:
            self._complain(getattr(error, "strerror", None) or "no answer in time")
            return
        self._problem = ""
        for address in addresses:
            self._missed[address] = 0
        for address in tuple(self._missed.keys() - addresses):
            self._missed[address] += 1
            if self._missed[address] >= _GONE_AFTER:
                del self._missed[address]

    async def _addresses(self) -> set[str]:
        loop = asyncio.get_running_loop()
        answers = await loop.getaddrinfo(self._source.dns, None, type=socket.SOCK_STREAM)
        found = sorted({str(address[0]) for *_, address in answers})
        good = {address for address in found if not is_link_local(address)}
        return set(sorted(good)[:MAX_NODES])

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            log.warning("nodes cannot be looked up", name=self._source.dns, problem=problem)
