"""Nodes by a service's EndpointSlices, over TLS from a server that speaks that part of a Kubernetes API."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.nodes.discovery import NodeSource
from gateway.nodes.kube_finder import Cluster, KubeFinder
from gateway.nodes.membership import keep_looking
from tests.tls_relay import make_certificates

PATH = (
    "/apis/discovery.k8s.io/v1/namespaces/inference/endpointslices"
    "?labelSelector=kubernetes.io%2Fservice-name%3Dvllm"
)
WITHIN_S = 20.0


def endpoint(*addresses: str, **conditions: bool) -> dict[str, Any]:
    """An endpoint as the API shows it; conditions that it does not tell are left out."""
    return {"addresses": list(addresses), "conditions": conditions, "targetRef": {"kind": "Pod", "name": "p"}}


def slices(*endpoints: dict[str, Any], kind: str = "IPv4", port: int | None = 8000) -> dict[str, Any]:
    """One slice of a service."""
    ports = [{"name": "http", "port": port, "protocol": "TCP"}]
    return {
        "metadata": {"name": "vllm-abc12", "labels": {"kubernetes.io/service-name": "vllm"}},
        "addressType": kind,
        "endpoints": list(endpoints),
        "ports": ports,
    }


@dataclass(slots=True)
class Api:
    """The server. It wants the account's token, and answers that one list only."""

    folder: Path
    url: str = ""
    items: list[dict[str, Any]] | None = field(default_factory=list)
    status: int = 200
    asked: int = 0

    def may(self, token: str) -> None:
        """From now on, this is the account's token."""
        (self.folder / "token").write_text(f"{token}\n")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        with closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked += 1
            line, _, headers = head.partition("\r\n")
            token = (self.folder / "token").read_text().strip()
            status, body = self.status, b"{}"
            if f"authorization: Bearer {token}\r\n" not in headers:
                status = 401
            elif line != f"GET {PATH} HTTP/1.1":
                status = 404
            elif status == 200:
                told = {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "items": self.items}
                body = json.dumps(told).encode()
            writer.write(b"HTTP/1.1 %d Told\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
            await writer.drain()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A cluster's API with a certificate of its own authority."""
    files = make_certificates(tmp_path)
    files.authority.rename(tmp_path / "ca.crt")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.server, files.server_key)
    one = Api(tmp_path)
    one.may("first")
    server = await asyncio.start_server(one.answer, "127.0.0.1", 0, ssl=tls)
    one.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield one


def finder(api: Api, *, port: int = 0) -> KubeFinder:
    source = NodeSource(engine="vllm", kubernetes="inference/vllm", port=port, every_s=0.02)
    return KubeFinder(source, Cluster(api=api.url, account=api.folder))


def urls(one: KubeFinder) -> list[str]:
    return [spec.url for spec in one.found.specs]


@asynccontextmanager
async def followed(one: KubeFinder) -> AsyncIterator[None]:
    """The finder at work."""
    await one.look()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(keep_looking(one))
        yield
        running.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that comes by itself."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_nodes_are_the_endpoints_of_a_service(api: Api) -> None:
    """Of all slices and both families; one that is not ready may come to be, one that ends is left out."""
    api.items = [
        slices(endpoint("10.0.0.1", ready=True), endpoint("10.0.0.2", ready=False)),
        slices(endpoint("10.0.0.3", ready=False, serving=True, terminating=True), endpoint("10.0.0.4")),
        slices(endpoint("2001:db8::1", ready=True), kind="IPv6"),
        slices(endpoint("somewhere.example"), kind="FQDN"),
        slices(endpoint("10.0.0.5"), port=None),
        slices(endpoint("169.254.1.1")),
    ]
    one = finder(api)
    await one.look()
    ipv4 = [f"http://10.0.0.{last}:8000" for last in (1, 2, 4)]

    assert [*ipv4, "http://[2001:db8::1]:8000"] == urls(one)
    assert "the service inference/vllm" == one.found.origin


async def test_the_port_can_be_named(api: Api) -> None:
    """Where the service has another one, or none."""
    api.items = [slices(endpoint("10.0.0.1"), port=None), slices(endpoint("10.0.0.2"))]
    one = finder(api, port=9000)
    await one.look()
    assert ["http://10.0.0.1:9000", "http://10.0.0.2:9000"] == urls(one)


async def test_nodes_follow_the_service(api: Api) -> None:
    """As its pods come and go, and as the account's token is replaced."""
    api.items = [slices(endpoint("10.0.0.1"))]
    one = finder(api)
    async with followed(one):
        api.items = [slices(endpoint("10.0.0.1", terminating=True), endpoint("10.0.0.2"))]
        await until(lambda: urls(one) == ["http://10.0.0.2:8000"])
        api.may("second")
        api.items = []
        await until(lambda: urls(one) == [])


@pytest.mark.parametrize("trouble", ["forbidden", "broken", "no list", "gone", "no token"])
async def test_an_api_in_trouble_takes_nothing_away(api: Api, trouble: str) -> None:
    """It is told once, with what may be missing; when it is back, the list is followed again."""
    api.items = [slices(endpoint("10.0.0.1"))]
    one = finder(api)
    await one.look()
    match trouble:
        case "forbidden":
            api.status = 403
        case "broken":
            api.status = 500
        case "no list":
            api.items = None
        case "gone":
            one._cluster = Cluster(api="https://127.0.0.1:1", account=api.folder)
        case _:
            one._cluster = Cluster(api=api.url, account=api.folder / "absent")
    with capture_logs() as logs:
        for _ in range(3):
            await one.look()

    assert ["http://10.0.0.1:8000"] == urls(one)
    assert ["nodes cannot be listed"] == [entry["event"] for entry in logs]
    if trouble == "forbidden":
        assert "list endpointslices.discovery.k8s.io in inference" in logs[0]["problem"]
    one._cluster = Cluster(api=api.url, account=api.folder)
    api.status, api.items = 200, [slices(endpoint("10.0.0.2"))]
    await one.look()
    assert ["http://10.0.0.2:8000"] == urls(one)


async def test_a_server_that_the_account_does_not_trust_gets_no_token(api: Api, tmp_path: Path) -> None:
    """The certificate is checked before anything is sent."""
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other).authority.rename(other / "ca.crt")
    (other / "token").write_text("first")
    one = KubeFinder(
        NodeSource(engine="vllm", kubernetes="inference/vllm"), Cluster(api=api.url, account=other)
    )
    api.items = [slices(endpoint("10.0.0.1"))]
    await one.look()

    assert ([], 0) == (urls(one), api.asked)
