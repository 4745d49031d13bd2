"""`auth.isolate_cache` on real engines: by their own counters, no tenant finds what another one left."""

import asyncio

from bench.engines.node import Counters, EngineNode, counters
from tests.conftest import Valkey
from tests.engines.asking import ask
from tests.tenants import guarded_gateway, key_of

PERSONA = {"role": "system", "content": "You are Nova, who keeps the lighthouse and paints ships. " * 12}


def counted(nodes: tuple[EngineNode, ...]) -> Counters:
    """What both counted."""

    async def all_of_them() -> Counters:
        return sum([await counters(node) for node in nodes], start=Counters())

    return asyncio.run(all_of_them())


def test_a_second_tenant_never_hits_the_first_ones_cache(
    engine: str, pair: tuple[EngineNode, ...], valkey: Valkey
) -> None:
    """The same prompt on the same node; and what a tenant left itself is found as ever."""
    first = pair[0]  # one node, so that nothing but the salt keeps them apart
    with guarded_gateway(
        f"{engine}={first.url}", valkey=valkey, options=("--set", "auth.isolate_cache=true")
    ) as gateway:
        keys = {tenant: key_of(gateway, valkey, tenant) for tenant in ("acme", "umbrella")}

        def found(tenant: str, question: str) -> int:
            before = counted((first,))
            headers = {"authorization": f"Bearer {keys[tenant]}"}
            said = ask(gateway.url, question, headers=headers, before=(PERSONA,), cache_salt="mine")
            assert 200 == said.status
            cached = (counted((first,)) - before).cached
            assert said.cached == cached
            return cached

        assert [0, 0] == [found("acme", "Who are you?"), found("umbrella", "Who are you?")]
        assert 100 < found("acme", "Where do you live?")
        assert 100 < found("umbrella", "Where do you live?")


def test_without_it_tenants_share_a_personas_prefix(
    engine: str, pair: tuple[EngineNode, ...], valkey: Valkey
) -> None:
    """So the test above can fail."""
    persona = {**PERSONA, "content": "Shared: " + PERSONA["content"]}
    with guarded_gateway(f"{engine}={pair[0].url}", valkey=valkey) as gateway:
        for tenant, least in (("acme", 0), ("umbrella", 100)):
            headers = {"authorization": f"Bearer {key_of(gateway, valkey, tenant)}"}
            assert least <= ask(gateway.url, "Who are you?", headers=headers, before=(persona,)).cached
