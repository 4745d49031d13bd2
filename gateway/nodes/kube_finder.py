"""Nodes by the EndpointSlices of a Kubernetes service, listed with the pod's own account.

An API that does not answer, or not as it should, takes nothing away: nodes that are really gone are found out
by their health.
"""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.errors import NodeFault
from gateway.nodes.asking import Answered, Asker
from gateway.nodes.discovery import NodeSource
from gateway.nodes.endpoint_slices import path_of, read_slices
from gateway.nodes.members import Found
from gateway.nodes.ports import MAX_NODES
from gateway.routing.node import NodeSpec

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cluster:
    """How a pod reaches its cluster's API."""

    api: str = "https://kubernetes.default.svc"
    account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """`token`, which is replaced now and then, and `ca.crt`."""


class KubeFinder:
    """Follows one service."""

    def __init__(self, source: NodeSource, cluster: Cluster | None = None) -> None:
        self._source = source
        self.every_s = source.every_s
        self._cluster = cluster or Cluster()
        self._problem = ""
        self.found = Found(source.origin)
        """Its nodes, as last listed."""

    async def look(self) -> None:
        """List it once."""
        try:
            places = read_slices(await self._listed(), self._source.port)
        except (NodeFault, OSError, ValueError) as error:
            self._complain(error)
            return
        self._problem = ""
        specs = tuple(self._source.node(address, port) for address, port in sorted(places)[:MAX_NODES])
        self.found = Found(self._source.origin, specs)

    async def _listed(self) -> bytes:
        """Raises OSError for files that cannot be read, a `NodeFault` for an API that does not answer."""
        cluster = self._cluster
        token, tls = await asyncio.to_thread(_credentials, cluster)
        # The engine is of no matter: what is asked is not a node.
        asker = Asker(NodeSpec(engine="openai", url=cluster.api, api_key=token), tls=tls)
        try:
            return await asker.get(path_of(self._source.kubernetes))
        finally:
            asker.close()

    def _complain(self, error: Exception) -> None:
        problem = str(error)
        if isinstance(error, Answered) and error.status in (401, 403):
            namespace = self._source.kubernetes.partition("/")[0]
            problem = f"{problem}: may the pod's account list endpointslices.discovery.k8s.io in {namespace}?"
        if problem != self._problem:
            self._problem = problem
            log.warning("nodes cannot be listed", service=self._source.kubernetes, problem=problem)


def _credentials(cluster: Cluster) -> tuple[str, ssl.SSLContext | None]:
    token = (cluster.account / "token").read_text().strip()
    if not cluster.api.startswith("https:"):
        return token, None
    return token, ssl.create_default_context(cafile=str(cluster.account / "ca.crt"))
