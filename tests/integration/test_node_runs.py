"""A restart of an engine is noticed, also where nothing says so outright: its cache is empty then."""

import asyncio
import time
from urllib.parse import urlsplit

import pytest

from gateway.nodes.roster import Roster
from gateway.routing.node import NodeSpec
from tests.integration.test_roster import Answering, answering, kept, polled, polls, until, whole


async def test_a_process_that_began_later_tells_of_a_restart() -> None:
    """Also where the new one has computed more than the old one had when it was asked last."""
    async with answering() as there, polled(there.url) as node:
        metrics = b"process_start_time_seconds 1.79e+09\nvllm:prompt_tokens_total 500\n"
        there.answers["/metrics"] = whole(metrics)
        await polls(there, 2)
        assert 0 == node.retention.knowledge(time.monotonic()).epoch
        there.answers["/metrics"] = whole(
            metrics.replace(b"1.79e+09", b"1.790000009e+09").replace(b"5", b"9")
        )
        await until(lambda: node.retention.knowledge(time.monotonic()).epoch == 1)
        await polls(there, 2)
        assert 1 == node.retention.knowledge(time.monotonic()).epoch


async def left(roster: Roster) -> None:
    """Its only node is removed."""
    roster.remove(roster.nodes[0].id)
    await until(lambda: not roster.nodes)


def epoch(roster: Roster) -> int:
    """How often its only node had an empty cache, as far as is known."""
    return roster.nodes[0].retention.knowledge(time.monotonic()).epoch


@pytest.mark.parametrize("restarts", [True, False])
async def test_a_node_that_comes_back_is_trusted_if_it_is_the_same_run(*, restarts: bool) -> None:
    """It was removed and added again: what was placed there is there, unless it was restarted meanwhile."""
    async with answering() as there:
        there.answers["/metrics"] = whole(b"vllm:prompt_tokens_total 500\n")
        async with kept(there.url) as roster:
            await polls(there, 2)
            await left(roster)
            there.answers["/metrics"] = whole(b"vllm:prompt_tokens_total %d\n" % (20 if restarts else 500))
            node = roster.add(NodeSpec(engine="vllm", url=there.url, weight=2.0))
            await until(lambda: node.is_healthy)
            assert epoch(roster) == restarts


async def test_a_node_that_comes_back_under_another_address_has_an_empty_cache() -> None:
    """So has one whose engine tells nothing by which its run could be known."""
    async with answering() as there, answering() as elsewhere, kept(there.url) as roster:
        await left(roster)
        roster.add(NodeSpec(engine="vllm", url=there.url))
        assert epoch(roster) == 1
        await left(roster)
        roster.add(NodeSpec(engine="vllm", url=elsewhere.url, id=urlsplit(there.url).netloc))
        assert epoch(roster) == 1


async def test_an_engine_without_metrics_that_was_down_was_restarted(unused_port: int) -> None:
    """Nothing listened there, and nothing else would tell."""
    node = Answering()
    async with kept(f"http://127.0.0.1:{unused_port}") as roster:
        await until(lambda: "no connection" in roster.nodes[0].problem)
        async with await asyncio.start_server(node.answer, "127.0.0.1", unused_port):
            await until(lambda: roster.nodes[0].is_healthy)
            assert epoch(roster) == 1
