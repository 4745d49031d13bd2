"""What FastAPI refuses, on either port, looks like every other error: OpenAI's envelope, the right status."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.api.admin import admin_app
from gateway.api.health import Readiness
from gateway.clock import Clock
from gateway.keys.everybody import Everybody
from gateway.telemetry import Telemetry
from history.growth import Growth
from history.rules import DialogueRules
from tests.gateway_process import Gateway

FIELDS = {"message", "type", "param", "code"}


@pytest.fixture(scope="module", params=["public", "admin"])
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[httpx.Client]:
    """A client of each port."""
    url = gateway.url if request.param == "public" else gateway.admin_url
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as one:
        yield one


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error; whatever it is, it has all of the envelope."""
    error: dict[str, Any] = answer.json()["error"]
    assert FIELDS == set(error)
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    return error


def test_unknown_path_is_404(client: httpx.Client) -> None:
    """With the path in the message, and the client's own id where it gave one."""
    answer = client.get("/v1/nothing", headers={"x-request-id": "mine-1"})

    assert (404, "mine-1") == (answer.status_code, answer.headers["x-request-id"])
    assert "/v1/nothing" in error_of(answer)["message"]


def test_other_method_is_405(client: httpx.Client) -> None:
    """With those that are allowed."""
    answer = client.post("/livez")

    assert (405, "GET") == (answer.status_code, answer.headers["allow"])
    assert error_of(answer)["type"] == "invalid_request_error"


@pytest.mark.parametrize("minutes", ["x", "", "1.5", "0", "-3", "1e9", "999999999999999999999999"])
def test_bad_parameter_is_400_and_named(gateway: Gateway, minutes: str) -> None:
    """Not FastAPI's 422 in a shape of its own."""
    answer = httpx.get(
        f"{gateway.admin_url}/admin/cache", params={"minutes": minutes}, trust_env=False, timeout=20
    )
    error = error_of(answer)

    assert (400, "invalid_request_error", "minutes") == (answer.status_code, error["type"], error["param"])
    assert error["message"].startswith("minutes: ")


def test_unknown_model_is_404(gateway: Gateway) -> None:
    """A fault of the gateway's own, through FastAPI."""
    answer = httpx.get(f"{gateway.url}/v1/models/absent", trust_env=False, timeout=20)

    assert (404, "model_not_found") == (answer.status_code, error_of(answer)["code"])


async def test_fault_nobody_foresaw_is_500_and_tells_nothing() -> None:
    """The same words as on the chat path; what happened is for the log."""

    async def ping() -> None:
        raise AssertionError("unused")

    class Broken:
        """A roster with a mistake in it."""

        @property
        def nodes(self) -> Any:
            raise RuntimeError("a secret")

    unused: Any = None
    desk: Any = SimpleNamespace(approve=None, widen=None, back=None)
    membership: Any = SimpleNamespace(roster=Broken())
    app = admin_app(
        conversations=unused,
        membership=membership,
        training=unused,
        rollouts=desk,
        authenticator=Everybody(),
        readiness=Readiness(lambda: (), ping),
        telemetry=Telemetry(),
        growth=Growth(DialogueRules()),
        clock=Clock(),
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        answer = await client.get("/admin/nodes")

    assert (500, "server_error") == (answer.status_code, error_of(answer)["type"])
    assert "secret" not in answer.text
