"""A real node that drains: what streams ends whole, and nothing new comes."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

from bench.engines.node import EngineNode, counters
from tests.engines.asking import ask, asked_until
from tests.gateway_process import running_gateway
from tests.node_traffic import control

STREAMS = 6


def test_a_draining_node_ends_its_streams_and_gets_no_more(pair: tuple[EngineNode, ...]) -> None:
    """By the gateway's headers and by the prompt tokens that the engine itself counted."""
    leaving, staying = pair
    with (
        running_gateway(*(f"{one.engine}={one.url}" for one in pair)) as gateway,
        control(gateway) as admin,
        ThreadPoolExecutor(STREAMS) as pool,
    ):
        long = [
            pool.submit(
                ask, gateway.url, f"Tell a story of {name}.", stream=True, max_tokens=60, min_tokens=60
            )
            for name in ("Luna", "Nova", "Vega", "Lyra", "Mira", "Iris")
        ]
        assert asked_until(lambda: admin.nodes()[leaving.name]["running"] > 0, within_s=30)
        assert 200 == admin.drain(leaving.name).status_code
        streams = [one.result() for one in long]
        assert {(200, True)} == {(one.status, one.is_whole) for one in streams}
        assert {leaving.name, staying.name} == {one.node for one in streams}

        before = asyncio.run(counters(leaving))
        later = [ask(gateway.url, f"And of number {number}?") for number in range(6)]
        assert {(200, staying.name)} == {(one.status, one.node) for one in later}
        assert before == asyncio.run(counters(leaving))

        admin.undrain(leaving.name)
        numbers = itertools.count()
        assert asked_until(
            lambda: ask(gateway.url, f"{next(numbers)} is back?", max_tokens=1).node == leaving.name,
            within_s=60,
        )
