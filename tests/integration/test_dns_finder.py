"""Nodes by the addresses of a name: through the system's own resolver, and as answers change."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from bench.stub_node.server import LocalStub, serve
from bench.stub_node.spec import StubSpec
from gateway.nodes.connection import Patience
from gateway.nodes.discovery import NodeSource
from gateway.nodes.dns_finder import DnsFinder
from gateway.nodes.members import ADDED
from gateway.nodes.membership import Membership
from gateway.nodes.memory_roster import MemoryRoster
from gateway.nodes.roster import Roster, RosterRules
from gateway.routing.node import NodeSpec
from tests.gateway_process import Stub, running_gateway
from tests.node_traffic import control, spread
from tests.ports import free_port

FAST_S = 0.02
WITHIN_S = 20.0


def source(port: int, name: str = "vllm.test") -> NodeSource:
    return NodeSource(dns=name, port=port, engine="vllm", weight=2.0, every_s=FAST_S)


class Names:
    """What the resolver of the loop says; an error is raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] | OSError = []
        self.asked = 0
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo, raising=False)

    async def getaddrinfo(self, host: str, port: object, **_: Any) -> list[Any]:
        """As the loop's, for everything that is no address itself."""
        if host != "vllm.test":
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[arg-type] # passed on
        self.asked += 1
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return [(2, 1, 6, "", (address, 0)) for address in self.addresses]


async def until(holds: Any) -> None:
    """Wait for something that comes by itself."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def kept(finder: DnsFinder, *configured: NodeSpec) -> AsyncIterator[Membership]:
    """A membership as the process runs it."""
    roster = Roster(configured, Patience(), RosterRules(trial=False))
    membership = Membership(roster, MemoryRoster(), configured, [finder], poll_every_s=FAST_S)
    await membership.load()
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(roster.run(every_s=FAST_S)),
            tasks.create_task(membership.run()),
        ]
        yield membership
        for task in running:
            task.cancel()
    roster.close()


@asynccontextmanager
async def at(port: int, *hosts: str) -> AsyncIterator[dict[str, LocalStub]]:
    """A stub node at each of these addresses of this machine."""
    if not hosts:
        yield {}
        return
    async with serve(StubSpec(), host=hosts[0], port=port) as stub, at(port, *hosts[1:]) as others:
        yield {hosts[0]: stub, **others}


async def test_nodes_follow_the_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come, become healthy, and go once they were missed twice; a running request ends first."""
    names, port = Names(monkeypatch), free_port()
    names.addresses = ["127.0.0.1", "127.0.0.2"]
    async with at(port, "127.0.0.1", "127.0.0.2", "127.0.0.3"), kept(DnsFinder(source(port))) as membership:
        nodes = membership.roster.by_id
        assert {f"127.0.0.1:{port}", f"127.0.0.2:{port}"} == nodes.keys()
        await until(lambda: all(node.is_healthy for node in nodes.values()))
        leaving = nodes[f"127.0.0.1:{port}"]
        leaving.running = 1
        names.addresses = ["127.0.0.2", "127.0.0.3"]
        await until(lambda: leaving.is_draining)
        assert 2.0 == nodes[f"127.0.0.3:{port}"].spec.weight
        leaving.running = 0
        await until(lambda: {f"127.0.0.2:{port}", f"127.0.0.3:{port}"} == nodes.keys())
        member = membership.member(f"127.0.0.3:{port}")
        assert member is not None
        assert "the name vllm.test" == member.origin


async def test_an_address_that_is_missing_once_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some name servers answer with a part of what they know."""
    names = Names(monkeypatch)
    finder = DnsFinder(source(8000))
    names.addresses = ["10.0.0.1", "10.0.0.2"]
    await finder.look()
    for missing in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
        names.addresses = [one for one in ("10.0.0.1", "10.0.0.2") if one != missing]
        await finder.look()
        assert 2 == len(finder.found.specs)
    await finder.look()
    assert ["http://10.0.0.2:8000"] == [spec.url for spec in finder.found.specs]


@pytest.mark.parametrize("fault", [socket.gaierror(-3, "try again"), socket.gaierror(-2, "not known")])
async def test_a_name_server_that_fails_takes_nothing_away(
    monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    """It is logged once, not at every look."""
    names = Names(monkeypatch)
    finder = DnsFinder(source(8000))
    names.addresses = ["10.0.0.1", "2001:db8::1"]
    await finder.look()
    names.addresses = fault
    with capture_logs() as logs:
        for _ in range(5):
            await finder.look()

    urls = [spec.url for spec in finder.found.specs]
    assert ["http://10.0.0.1:8000", "http://[2001:db8::1]:8000"] == urls
    assert ["nodes cannot be looked up"] == [entry["event"] for entry in logs]


async def test_link_local_answers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server is not trusted with that."""
    names = Names(monkeypatch)
    names.addresses = ["169.254.169.254", "fe80::1", "10.0.0.1"]
    finder = DnsFinder(source(8000))
    await finder.look()

    assert ["http://10.0.0.1:8000"] == [spec.url for spec in finder.found.specs]


async def test_of_two_sources_of_one_node_the_first_has_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration before an administrator, an administrator before names."""
    names, port = Names(monkeypatch), free_port()
    names.addresses = ["127.0.0.1", "127.0.0.2"]
    configured = NodeSpec(engine="vllm", url=f"http://127.0.0.1:{port}", weight=9.0)
    async with at(port, "127.0.0.1", "127.0.0.2"), kept(DnsFinder(source(port)), configured) as membership:
        nodes = membership.roster.by_id
        assert (9.0, 2.0) == tuple(nodes[f"127.0.0.{last}:{port}"].spec.weight for last in (1, 2))
        names.addresses = ["127.0.0.1"]
        await until(lambda: f"127.0.0.2:{port}" not in nodes)
        await membership.add(NodeSpec(engine="vllm", url=f"http://127.0.0.2:{port}", weight=5.0))
        names.addresses = ["127.0.0.1", "127.0.0.2"]
        seen = names.asked
        await until(lambda: names.asked > seen + 2)
        assert 5.0 == nodes[f"127.0.0.2:{port}"].spec.weight
        member = membership.member(f"127.0.0.2:{port}")
        assert member is not None
        assert ADDED == member.origin


def test_a_gateway_finds_its_nodes_by_name(stub: Stub) -> None:
    """By this machine's own resolver, before the first request."""
    port = stub.url.rpartition(":")[2]
    found = f"[{{dns: localhost, port: {port}, engine: vllm}}]"
    options = ("--config", "config/dev.yaml", "--set", "nodes=[]", "--set", f"discovery={found}")
    with running_gateway(options=options) as gateway, control(gateway) as admin:
        assert "the name localhost" == admin.nodes()[f"127.0.0.1:{port}"]["origin"]
        assert {f"127.0.0.1:{port}": 3} == spread(gateway, 3)
        assert 409 == admin.remove(f"127.0.0.1:{port}").status_code
