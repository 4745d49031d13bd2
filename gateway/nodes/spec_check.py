"""Whether an address that an administrator types may become a node's: looked up, and asked once.

A node that does not answer yet is welcome; one that sends requests elsewhere is not.
"""

import asyncio
import socket
from urllib.parse import urlsplit

from gateway.errors import BadRequest, NodeFault
from gateway.nodes.addresses import LINK_LOCAL, is_link_local
from gateway.nodes.asking import Answered, Asker
from gateway.nodes.dialect import DIALECTS
from gateway.routing.node import NodeSpec

_LOOK_UP_WITHIN_S = 5.0


async def check_reachable(spec: NodeSpec) -> None:
    """Raises `BadRequest` for a name that nobody knows, a link-local address, or a redirect."""
    await _look_up(urlsplit(spec.url).hostname or "")
    asker = Asker(spec)
    try:
        await asker.get(DIALECTS[spec.engine].health[0])
    except Answered as answered:
        if 300 <= answered.status < 400:
            raise BadRequest(
                f"{spec.url} answers with a redirect, and redirects are not followed: give the address that "
                "it leads to",
                param="url",
            ) from None
    except NodeFault:
        pass  # it may come up later; until then it gets no traffic
    finally:
        asker.close()


async def _look_up(host: str) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LOOK_UP_WITHIN_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "no answer in time"
        raise BadRequest(f"{host} cannot be looked up: {reason}", param="url") from None
    if any(is_link_local(str(address[0])) for *_, address in found):
        raise BadRequest(LINK_LOCAL, param="url")
