"""A node's KV events in a running gateway: found where the engine says, followed, and seen on its page."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from bench.stub_node.spec import EngineName
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.node_traffic import Control, control, name_of
from tests.ports import free_port

ENGINES: tuple[EngineName, ...] = ("vllm", "sglang")


@contextmanager
def followed(engine: EngineName, **traits: Any) -> Iterator[tuple[Stub, Gateway, Control]]:
    """A gateway that is connected to the events of its one node."""
    with (
        running_stub(engine=engine, kv_port=0, **traits) as stub,
        running_gateway(f"{engine}={stub.url}") as gateway,
        control(gateway) as admin,
    ):
        assert until(lambda: events(stub, admin).get("connected", False))
        yield stub, gateway, admin


def events(stub: Stub, admin: Control) -> dict[str, Any]:
    """What is known of the node's cache."""
    told: dict[str, Any] = admin.nodes()[name_of(stub.url)]["kv_events"]
    return told


def chat(gateway: Gateway, text: str) -> None:
    """One request that fills some blocks."""
    body = {"model": "stub", "messages": [{"role": "user", "content": f"{text} " * 200}]}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, trust_env=False, timeout=30)
    assert 200 == answer.status_code


def filled(stub: Stub, gateway: Gateway, admin: Control) -> None:
    """Chat until an event of it has come: a subscription takes a moment after its connection."""

    def has_come() -> bool:
        chat(gateway, "more and more")
        stub.control.post("/stub/reset_cache")
        return bool(events(stub, admin)["stored_blocks"])

    assert until(has_come, every_s=0.1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flush_is_a_new_epoch(engine: EngineName) -> None:
    """Found by what the engine says of its publisher, in its own form and with its own topic."""
    with followed(engine) as (stub, gateway, admin):
        filled(stub, gateway, admin)
        chat(gateway, "something that is kept")
        assert until(lambda: stub.stats()["blocks_stored"] > 0)
        assert until(lambda: events(stub, admin)["state"] == "trusted")
        before = events(stub, admin)
        stub.control.post("/stub/reset_cache")
        assert until(lambda: events(stub, admin)["epoch"] == before["epoch"] + 1)
        assert before["clears"] + 1 == events(stub, admin)["clears"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_restart_is_a_new_epoch(engine: EngineName) -> None:
    """On the same ports: the numbers of its batches begin anew."""
    traits: dict[str, Any] = {"engine": engine, "port": free_port(), "kv_port": free_port(side_by_side=2)}
    with (
        running_stub(**traits) as first,
        running_gateway(f"{engine}={first.url}") as gateway,
        control(gateway) as admin,
    ):
        assert until(lambda: events(first, admin).get("connected", False))
        filled(first, gateway, admin)
        first.kill()
        assert until(lambda: not events(first, admin)["connected"])
        before = events(first, admin)  # now that all has come that it said
        assert until(lambda: admin.states() == {name_of(first.url): "away"}, within_s=10)
        with running_stub(**traits) as second:
            assert until(lambda: events(second, admin)["connected"], within_s=15)
            assert until(lambda: admin.states() == {name_of(second.url): "healthy"})
            chat(gateway, "the first one after")
            assert until(lambda: events(second, admin)["restarts"] == 1)
            assert before["epoch"] + 1 == events(second, admin)["epoch"]


def test_a_node_that_was_restarted_without_events_is_followed_no_more() -> None:
    """Nothing is said of its cache that was true of another one."""
    traits: dict[str, Any] = {"engine": "vllm", "port": free_port()}
    with (
        running_stub(kv_port=0, **traits) as first,
        running_gateway(f"vllm={first.url}") as gateway,
        control(gateway) as admin,
    ):
        assert until(lambda: events(first, admin).get("connected", False))
        filled(first, gateway, admin)
        first.kill()
        assert until(lambda: admin.states() == {name_of(first.url): "away"}, within_s=10)
        with running_stub(**traits) as second:
            assert until(lambda: admin.states() == {name_of(second.url): "healthy"}, within_s=10)
            assert until(lambda: events(second, admin)["source"] is None)
            assert "suspect" == events(second, admin)["state"]
            assert [] == admin.nodes()[name_of(second.url)]["notes"]


def test_the_metrics_tell_of_a_nodes_cache() -> None:
    """For Prometheus, by node."""
    with followed("vllm") as (stub, gateway, admin):
        filled(stub, gateway, admin)
        text = httpx.get(f"{gateway.admin_url}/metrics", trust_env=False).text
        name = name_of(stub.url)

        assert f'friendo_node_healthy{{node="{name}"}} 1.0' in text
        assert f'friendo_node_kv_state{{node="{name}",state="trusted"}} 1.0' in text
        assert f'friendo_node_kv_events_total{{kind="stored_blocks",node="{name}"}}' in text
        assert f'friendo_node_kv_epoch{{node="{name}"}}' in text


def test_an_engine_that_connects_instead_of_listening_is_named_with_its_flag(unused_port: int) -> None:
    """The place is configured, nobody listens there, and the node's page says why that may be."""
    source = f"{{endpoint: 'tcp://127.0.0.1:{unused_port}'}}"
    with running_stub() as stub:
        nodes = f"[{{engine: vllm, url: '{stub.url}', kv_events: {source}}}]"
        options = ("--config", "config/dev.yaml", "--set", f"nodes={nodes}")
        with running_gateway(options=options) as gateway, control(gateway) as admin:
            assert until(lambda: bool(admin.nodes()[name_of(stub.url)]["notes"]), within_s=10)
            (note,) = admin.nodes()[name_of(stub.url)]["notes"]
            assert "nobody listens for KV events" in note
            assert '"endpoint":"tcp://*:5557"' in note
