"""A real SGLang server with two data-parallel ranks: each is a node with a cache of its own."""

from pathlib import Path
from typing import Any

import pytest

from bench.engines.launch import SglangTraits
from bench.engines.node import EngineNode
from tests.engines.dialogues import bench, configured
from tests.engines.lender import Lender
from tests.engines.test_hits import ALONE, NAMES, WINDOW
from tests.gateway_process import running_gateway
from tests.node_traffic import control

pytestmark = pytest.mark.parametrize("engine", ["sglang"], indirect=True)
PAGE = 16
TURNS = 12


@pytest.fixture
def server(engine: str, lender: Lender) -> EngineNode:
    """The server of both."""
    return lender.lend(SglangTraits(ranks=2, lora=True))[0]


async def test_each_conversation_stays_on_its_rank(server: EngineNode) -> None:
    """By the header that the engine gets, and what is cached there is found."""
    async with bench((server,), (*WINDOW, *ALONE)) as one:
        measured = await one.measure(NAMES, TURNS, block=PAGE)
    print(measured.table("sglang, one server with two ranks, stepped window 4 to 8, nothing else"))

    ranks = {f"{server.name}-rank{rank}" for rank in (0, 1)}
    homes = {(turn.dialogue, turn.node) for turn in measured.turns if turn.route == "bound"}
    assert ranks == {turn.node for turn in measured.turns}
    assert ranks == {node for _, node in homes}
    assert sum(turn.entry.call.cached for turn in measured.turns) == measured.counted.cached
    assert measured.share >= 0.95
    assert measured.kept_promises >= 0.98


def test_an_adapter_that_cannot_be_loaded_is_refused_with_the_reason(
    server: EngineNode, adapters: dict[str, Path]
) -> None:
    """SGLang answers 500 and "Internal Server Error"."""
    nodes: list[dict[str, Any]] = [{"engine": "sglang", "url": server.url, "rank": rank} for rank in (0, 1)]
    options = ("--config", "config/dev.yaml", *configured(nodes))
    with running_gateway(options=options) as gateway, control(gateway) as admin:
        body = {"name": "warm", "path": str(adapters["warm"])}
        answer = admin.client.post(f"/admin/nodes/{server.name}-rank0/adapters", json=body)
    assert 400 == answer.status_code
    assert "data-parallel" in answer.json()["error"]["message"]
