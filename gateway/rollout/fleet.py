"""The nodes of this replica's roster, as rollouts see and use them."""

from collections.abc import Sequence

import msgspec

from gateway.errors import NodeBroke
from gateway.nodes import completion
from gateway.nodes.adapters import AdapterSpec, served_name
from gateway.nodes.membership import Membership
from gateway.rollout.ports import NodeView
from gateway.rollout.precheck import Host
from gateway.rollout.record import Version
from gateway.routing.node import Node


class RosterFleet:
    """A Fleet over the membership."""

    def __init__(self, membership: Membership, *, within_s: float) -> None:
        self._membership = membership
        self._within_s = within_s

    def nodes(self) -> Sequence[NodeView]:
        """See Fleet."""
        return [_view(node) for node in self._membership.roster.nodes]

    async def load(self, node: str, version: Version) -> None:
        """See Fleet."""
        watch = self._membership.watch(node)
        await watch.load_adapter(AdapterSpec(version.name, version.path), is_immutable=True)

    async def unload(self, node: str, name: str) -> None:
        """See Fleet."""
        await self._membership.watch(node).unload_adapter(name)

    async def say(self, node: str, model: str, prompt: str, *, max_tokens: int) -> str:
        """See Fleet."""
        watch = self._membership.watch(node)
        asked = {
            "model": served_name(watch.node, model),
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        answer = await watch.ask("/v1/chat/completions", msgspec.json.encode(asked), within_s=self._within_s)
        said = completion.from_json(answer).message.get("content")
        if said is not None and not isinstance(said, str):
            raise NodeBroke("what it answered is no text")
        return said or ""

    async def drain(self, node: str) -> None:
        """See Fleet."""
        await self._membership.drain(node)

    async def undrain(self, node: str) -> None:
        """See Fleet."""
        await self._membership.undrain(node)


def _view(node: Node) -> NodeView:
    return NodeView(
        name=node.id,
        is_healthy=node.is_healthy,
        is_draining=node.is_draining,
        models=node.models,
        adapters=node.parents,
        running=max(node.running, node.working or 0),
        is_fixed=bool(node.spec.models),
        engine=node.spec.engine,
        host=Host(
            node.id,
            max_rank=node.facts.max_lora_rank,
            modules=node.facts.lora_modules,
            roots=node.roots,
        ),
    )
