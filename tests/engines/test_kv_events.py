"""What a real engine tells of its cache: found where it says, followed, and shown on the node's page."""

import itertools
import time
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
POLLED_EVERY_S = 2.5


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


def known(node: EngineNode, gateway: Gateway, admin: Control) -> dict[str, Any]:
    """What is known once events come: a subscription takes a moment after its connection."""
    numbers = itertools.count()

    def has_come() -> bool:
        ask(gateway.url, STORY.format(f"Number {next(numbers)}") * 10, max_tokens=2)
        told = events(admin, node)
        return bool(told["stored_blocks"]) and told["state"] == "trusted"

    assert asked_until(lambda: events(admin, node)["connected"], within_s=SEEN_WITHIN_S)
    assert asked_until(has_come, within_s=60)
    return events(admin, node)


def test_the_nodes_page_says_how_large_its_cache_is(engine: str, node: EngineNode, gateway: Gateway) -> None:
    """And that nothing is missing of what it should be started with."""
    with control(gateway) as admin:
        page = admin.nodes()[node.name]
    assert ({"vllm": 32, "sglang": 16}[engine], 1024) == (page["block_size"], page["kv_tokens"])
    assert (True, 512, []) == (page["keeps_prefixes"], page["max_context"], page["notes"])


def test_a_cleared_cache_is_a_new_epoch(engine: str, node: EngineNode, gateway: Gateway) -> None:
    """SGLang tells of it at once, vLLM with the batch of its next request."""
    with control(gateway) as admin:
        before = known(node, gateway, admin)
        text = STORY.format("of the clear") * 10
        assert asked_until(lambda: ask(gateway.url, text, max_tokens=2).cached > 0, within_s=60)
        cleared = httpx.post(f"{node.url}{CLEARS[engine]}", timeout=30, trust_env=False)
        assert 200 == cleared.status_code
        if engine == "sglang":
            assert asked_until(
                lambda: events(admin, node)["clears"] > before["clears"], within_s=SEEN_WITHIN_S
            )
        assert 0 == ask(gateway.url, text, max_tokens=2).cached
        assert asked_until(lambda: events(admin, node)["clears"] > before["clears"], within_s=SEEN_WITHIN_S)
        assert 0 < ask(gateway.url, text, max_tokens=2).cached
        after = events(admin, node)
    assert (before["epoch"] + 1, before["clears"] + 1) == (after["epoch"], after["clears"])
    assert "trusted" == after["state"]


def test_evictions_tell_the_horizon(node: EngineNode, gateway: Gateway) -> None:
    """Prompts that do not fit together push each other out, and how long they lay there is learned."""
    with control(gateway) as admin:
        before = known(node, gateway, admin)
        for number in range(10):
            ask(gateway.url, STORY.format(f"of island {number}") * 20, max_tokens=2)
            time.sleep(1.5)  # below a second is no horizon
        assert asked_until(
            lambda: events(admin, node)["removed_blocks"] > before["removed_blocks"], within_s=SEEN_WITHIN_S
        )
        told = events(admin, node)
    assert told["horizon_s"] is not None
    assert 0 < told["horizon_s"] < 300
    assert ("trusted", before["epoch"]) == (told["state"], told["epoch"])


def test_a_restarted_engine_is_a_new_epoch(node: EngineNode, gateway: Gateway, lender: Lender) -> None:
    """Known by its counters before it has published anything, and not twice when it does."""
    with control(gateway) as admin:
        assert asked_until(lambda: events(admin, node)["connected"], within_s=SEEN_WITHIN_S)
        text = STORY.format("of old") * 10
        assert asked_until(lambda: ask(gateway.url, text, max_tokens=2).cached > 0, within_s=60)
        before = known(node, gateway, admin)["epoch"]
        time.sleep(2 * POLLED_EVERY_S)  # by then the gateway has read its counters; nothing shows that it has
        node.kill()
        assert asked_until(lambda: admin.states()[node.name] == "away", within_s=SEEN_WITHIN_S)
        lender.lend(node.traits)
        assert asked_until(lambda: admin.states()[node.name] == "healthy", within_s=SEEN_WITHIN_S)
        assert asked_until(lambda: events(admin, node)["epoch"] == before + 1, within_s=SEEN_WITHIN_S)
        assert 0 == ask(gateway.url, text, max_tokens=2).cached
        numbers = itertools.count()

        def has_told() -> bool:
            ask(gateway.url, STORY.format(f"Afterwards {next(numbers)}") * 10, max_tokens=2)
            return bool(events(admin, node)["restarts"])

        assert asked_until(has_told, within_s=60)
        assert before + 1 == events(admin, node)["epoch"]
