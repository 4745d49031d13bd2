"""Who belongs to the roster, by everybody who has a say in it. Pure.

The configuration comes first, then what administrators added, then what was found by name. A drain may be
noted for any of them; everything else of a node is its source's to say.
"""

from collections.abc import Iterable, Mapping

import msgspec

from gateway.nodes.ports import Drain, RosterTable
from gateway.routing.node import NodeSpec

CONFIGURED = "the configuration"
ADDED = "an administrator"


class Found(msgspec.Struct, frozen=True):
    """The nodes that one source tells of now."""

    origin: str
    specs: tuple[NodeSpec, ...] = ()


class Member(msgspec.Struct, frozen=True):
    """A node that is to be there."""

    spec: NodeSpec
    origin: str
    drain: Drain | None = None


def members(
    configured: Iterable[NodeSpec], table: RosterTable, found: Iterable[Found]
) -> Mapping[str, Member]:
    """Every node that is to be there, by its name; of two with one name the first source's."""
    added = Found(ADDED, tuple(table.specs.values()))
    wanted: dict[str, Member] = {}
    for source in (Found(CONFIGURED, tuple(configured)), added, *found):
        for spec in source.specs:
            wanted.setdefault(spec.name, Member(spec, source.origin, table.drains.get(spec.name)))
    return wanted
