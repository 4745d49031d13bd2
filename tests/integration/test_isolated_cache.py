"""`auth.isolate_cache`: a tenant never finds what another one left in an engine's cache."""

from collections.abc import Iterator

import httpx
import pytest

from bench.stub_node.spec import EngineName
from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_stub, until
from tests.tenants import guarded_gateway, key_of

PERSONA = {"role": "system", "content": "You are Luna, who lives by the sea and keeps bees. " * 20}


@pytest.fixture(params=["vllm", "sglang", "openai"])
def engine(request: pytest.FixtureRequest) -> EngineName:
    """Those that can, and one that cannot."""
    name: EngineName = request.param
    return name


@pytest.fixture
def node(engine: EngineName) -> Iterator[Stub]:
    """A node of it."""
    with running_stub(engine=engine) as stub:
        yield stub


@pytest.fixture(params=[True, False])
def isolates(request: pytest.FixtureRequest) -> bool:
    """Whether it is switched on."""
    return bool(request.param)


@pytest.fixture
def gateway(engine: EngineName, node: Stub, isolates: bool, valkey: Valkey) -> Iterator[Gateway]:
    """In front of it, with keys."""
    window = "history.rules.window={min_turns: 1, max_turns: 2}"
    options = ("--set", f"auth.isolate_cache={str(isolates).lower()}", "--set", window)
    with guarded_gateway(f"{engine}={node.url}", valkey=valkey, options=options) as process:
        yield process


def test_tenants_share_what_the_engine_lets_them_share(
    engine: EngineName, isolates: bool, node: Stub, gateway: Gateway, valkey: Valkey
) -> None:
    """Each finds its own; the other's only if the caches are one; so it is for the gateway's own calls."""
    keys = {tenant: key_of(gateway, valkey, tenant) for tenant in ("acme", "umbrella")}

    def ask(tenant: str, number: int) -> int:
        messages = [*([PERSONA] if number == 0 else []), {"role": "user", "content": f"Hello {number}."}]
        answer = httpx.post(
            f"{gateway.url}/v1/chat/completions",
            json={"model": "stub", "conversation": "same", "messages": messages, "cache_salt": "mine"},
            headers={"authorization": f"Bearer {keys[tenant]}"},
            trust_env=False,
        )
        return int(answer.raise_for_status().json()["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert 0 == ask("acme", 0)
    assert 100 < ask("acme", 1)
    found = ask("umbrella", 0)
    assert (found == 0) is (isolates and engine != "openai")

    for number in range(2, 5):
        ask("acme", number)
    assert until(lambda: any(body["max_tokens"] in (1, 400) for body in bodies(node)))
    salts = {body.get("cache_salt") for body in bodies(node)}
    assert (2 if isolates and engine != "openai" else 1) == len(salts)
    assert (None in salts) is not (isolates and engine != "openai")


def bodies(node: Stub) -> list[dict[str, int]]:
    """Of the last chats."""
    return [{"max_tokens": 0, **request["body"]} for request in node.stats()["recent"]]
