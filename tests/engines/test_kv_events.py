"""What a real engine tells of its cache: found where it says, followed, and shown on the node's page."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bench.engines.launch import SglangTraits, VllmTraits
from bench.engines.node import EngineNode
from tests.engines.asking import ask, asked_until
from tests.engines.lender import Lender
from tests.gateway_process import Gateway, running_gateway
from tests.node_traffic import Control, control

SMALL = {
    "vllm": VllmTraits(kv_tokens=1024, context=512, is_dev=True),
    "sglang": SglangTraits(kv_tokens=1024, context=512, most_running=1, most_queued=1),
}
CLEARS = {"vllm": "/reset_prefix_cache", "sglang": "/flush_cache"}
STORY = "The lighthouse keeper {} counts the ships that pass the harbour at night. "
SEEN_WITHIN_S = 20.0


@pytest.fixture
def node(engine: str, lender: Lender) -> EngineNode:
    """One whose cache holds a few prompts."""
    return lender.lend(SMALL[engine])[0]


@pytest.fixture
def gateway(node: EngineNode) -> Iterator[Gateway]:
    """In front of it."""
    with running_gateway(f"{node.engine}={node.url}") as running:
        yield running


def events(admin: Control, node: EngineNode) -> dict[str, Any]:
    """What is known of its cache."""
    told: dict[str, Any] = admin.nodes()[node.name]["kv_events"]
    return told


def test_a_cleared_cache_is_a_new_epoch_and_evictions_tell_the_horizon(
    engine: str, node: EngineNode, gateway: Gateway
) -> None:
    """Both in numbers that come from the engine alone."""
    with control(gateway) as admin:
        assert asked_until(lambda: events(admin, node)["connected"], within_s=SEEN_WITHIN_S)
        page = admin.nodes()[node.name]
        assert {"vllm": 32, "sglang": 16}[engine] == page["block_size"]
        assert 1024 == page["kv_tokens"]
        number = 0

        def has_come() -> bool:
            """A subscription takes a moment after its connection."""
            nonlocal number
            number += 1
            ask(gateway.url, STORY.format(number) * 10, max_tokens=2)
            told = events(admin, node)
            return bool(told["stored_blocks"]) and told["state"] == "trusted"

        assert asked_until(has_come, within_s=60)
        before = events(admin, node)
        cleared = httpx.post(f"{node.url}{CLEARS[engine]}", timeout=30, trust_env=False)
        assert 200 == cleared.status_code
        assert asked_until(
            lambda: events(admin, node)["epoch"] == before["epoch"] + 1, within_s=SEEN_WITHIN_S
        )
        assert before["clears"] + 1 == events(admin, node)["clears"]
        again = STORY.format(number) * 10
        assert 0 == ask(gateway.url, again, max_tokens=2).cached
        assert 0 < ask(gateway.url, again, max_tokens=2).cached

        for other in range(8):
            ask(gateway.url, STORY.format(f"Number {other}") * 24, max_tokens=2)
        assert asked_until(lambda: events(admin, node)["removed_blocks"] > 0, within_s=SEEN_WITHIN_S)
        told = events(admin, node)
        assert told["horizon_s"] is not None
        assert 0 < told["horizon_s"] < 300
        assert ("trusted", before["epoch"] + 1) == (told["state"], told["epoch"])


def test_a_restarted_engine_is_a_new_epoch(node: EngineNode, gateway: Gateway, lender: Lender) -> None:
    """Its batches are numbered anew, and nothing of its cache is left."""
    with control(gateway) as admin:
        assert asked_until(lambda: events(admin, node)["connected"], within_s=SEEN_WITHIN_S)
        text = STORY.format("of old") * 10
        assert asked_until(lambda: ask(gateway.url, text, max_tokens=2).cached > 0, within_s=60)
        before = events(admin, node)["epoch"]
        node.kill()
        assert asked_until(lambda: admin.states()[node.name] == "away", within_s=SEEN_WITHIN_S)
        lender.lend(node.traits)
        assert asked_until(lambda: admin.states()[node.name] == "healthy", within_s=SEEN_WITHIN_S)
        assert asked_until(lambda: events(admin, node)["epoch"] > before, within_s=SEEN_WITHIN_S)
        assert 0 == ask(gateway.url, text, max_tokens=2).cached
