"""LoRA adapters on running nodes: loaded, asked for, unloaded, and never mixed up with their model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.node_traffic import Control, control, name_of

LONG = "Once more, from the beginning: " + "all of this is said again and again. " * 60


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A folder that an engine takes for an adapter."""
    (tmp_path / "adapter_config.json").write_text("{}")
    return str(tmp_path)


@pytest.fixture(params=["vllm", "sglang"])
def engine(request: pytest.FixtureRequest) -> str:
    """Both engines that load adapters."""
    return str(request.param)


@pytest.fixture
def node(engine: str) -> Iterator[Stub]:
    """One node of that engine."""
    with running_stub(engine=engine) as stub:
        yield stub


@pytest.fixture
def gateway(engine: str, node: Stub) -> Iterator[Gateway]:
    """In front of it."""
    with running_gateway(f"{engine}={node.url}") as running:
        yield running


@pytest.fixture
def admin(gateway: Gateway) -> Iterator[Control]:
    """Its control plane."""
    with control(gateway) as found:
        yield found


def load(admin: Control, node: Stub, name: str, path: str) -> httpx.Response:
    body = {"name": name, "path": path}
    return admin.client.post(f"/admin/nodes/{name_of(node.url)}/adapters", json=body)


def unload(admin: Control, node: Stub, name: str) -> httpx.Response:
    return admin.client.delete(f"/admin/nodes/{name_of(node.url)}/adapters/{name}")


def ask(gateway: Gateway, model: str, text: str = LONG) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 3}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30, trust_env=False)


def cached(answer: httpx.Response) -> int:
    usage: dict[str, Any] = answer.raise_for_status().json()["usage"]
    return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))


def test_an_adapter_is_loaded_asked_for_and_unloaded(
    gateway: Gateway, admin: Control, node: Stub, weights: str
) -> None:
    """It is listed, has a cache of its own (so it is really the adapter that answers), and goes again."""
    assert 404 == ask(gateway, "stub-v1").status_code
    shown = load(admin, node, "stub-v1", weights)

    assert 200 == shown.status_code
    assert {"stub-v1": "stub"} == shown.json()["adapters"]
    listed = httpx.get(f"{gateway.url}/v1/models", trust_env=False).json()["data"]
    assert {"stub", "stub-v1"} == {model["id"] for model in listed}
    assert [0, True] == [cached(ask(gateway, "stub")), cached(ask(gateway, "stub")) > 100]
    assert [0, True] == [cached(ask(gateway, "stub-v1")), cached(ask(gateway, "stub-v1")) > 100]

    assert {} == unload(admin, node, "stub-v1").raise_for_status().json()["adapters"]
    assert 404 == ask(gateway, "stub-v1").status_code
    assert cached(ask(gateway, "stub")) > 100


@pytest.mark.parametrize("conversation", [None, "named"])
def test_the_answer_has_the_name_that_was_asked_for(
    gateway: Gateway, admin: Control, node: Stub, weights: str, conversation: str | None
) -> None:
    """In a body, in every chunk of a stream, and in a stored answer that is asked for again."""
    load(admin, node, "stub-v1", weights).raise_for_status()
    body = {"model": "stub-v1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 30}
    if conversation is not None:
        body |= {"conversation": f"{conversation}-{node.url}"}
    url, headers = f"{gateway.url}/v1/chat/completions", {"idempotency-key": "again"}
    names = []
    for asked in (headers, headers, {}):
        whole = httpx.post(url, json=body, headers=asked, timeout=30, trust_env=False)
        names.append(whole.raise_for_status().json()["model"])
    stream = {**body, "stream": True, "stream_options": {"include_usage": True}}
    text = httpx.post(url, json=stream, timeout=30, trust_env=False).raise_for_status().text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    names += [chunk["model"] for chunk in chunks]

    assert len(chunks) > 20
    assert {"stub-v1"} == set(names)


def test_what_cannot_be_is_refused_with_what_to_do(admin: Control, node: Stub, weights: str) -> None:
    """A name is used once while an engine runs: its cache still answers for the weights that it had."""
    load(admin, node, "stub-v1", weights).raise_for_status()
    unload(admin, node, "stub-v1").raise_for_status()
    refused = {
        "again": load(admin, node, "stub-v1", weights),
        "the model": load(admin, node, "stub", weights),
        "no such folder": load(admin, node, "stub-v2", "/nowhere"),
        "no name": load(admin, node, "", weights),
        "unknown": unload(admin, node, "never was"),
    }

    assert {"unknown"} == {case for case, answer in refused.items() if answer.status_code == 404} - {
        "no such folder"
    }
    assert {400, 404} == {answer.status_code for answer in refused.values()}
    errors = {case: answer.json()["error"] for case, answer in refused.items()}
    assert all({"message", "type", "param", "code"} == set(error) for error in errors.values())
    assert "a name and a path of its own" in errors["again"]["message"]
    assert "/nowhere" in errors["no such folder"]["message"]


def test_adapters_of_a_named_model_are_served(engine: str, node: Stub, weights: str) -> None:
    """A configuration that names the model need not name each version of its adapters."""
    nodes = [{"engine": engine, "url": node.url, "models": ["stub"]}]
    options = ("--config", "config/dev.yaml", "--set", f"nodes={json.dumps(nodes)}")
    with running_gateway(options=options) as gateway, control(gateway) as admin:
        load(admin, node, "stub-v1", weights).raise_for_status()
        assert 200 == ask(gateway, "stub-v1").status_code


def test_an_engine_that_cannot_says_so(stub: Stub, weights: str) -> None:
    """llama.cpp and whatever else speaks the API."""
    with running_gateway(f"openai={stub.url}") as gateway, control(gateway) as admin:
        answer = load(admin, stub, "v1", weights)

    assert 400 == answer.status_code
    assert "cannot load adapters" in answer.json()["error"]["message"]


def test_another_replica_serves_it_within_a_poll(engine: str, node: Stub, weights: str) -> None:
    """What one gateway loaded, the others find in the node's list."""
    with (
        running_gateway(f"{engine}={node.url}") as one,
        running_gateway(f"{engine}={node.url}") as other,
        control(one) as admin,
    ):
        load(admin, node, "stub-v1", weights).raise_for_status()
        assert until(lambda: ask(other, "stub-v1").status_code == 200)
