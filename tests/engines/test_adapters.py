"""Real LoRA adapters on real engines: loaded, asked for and unloaded through the gateway."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import httpx

from bench.engines.launch import MODEL_NAME
from bench.engines.node import EngineNode
from tests.engines.asking import ask
from tests.gateway_process import Gateway, running_gateway
from tests.node_traffic import Control, control

QUESTION = "Tell me about boats."


def load(admin: Control, node: EngineNode, name: str, path: Path) -> httpx.Response:
    body = {"name": name, "path": str(path)}
    return admin.client.post(f"/admin/nodes/{node.name}/adapters", json=body)


def unload(admin: Control, node: EngineNode, name: str) -> httpx.Response:
    return admin.client.delete(f"/admin/nodes/{node.name}/adapters/{name}")


def listed(gateway: Gateway) -> set[str]:
    models = httpx.get(f"{gateway.url}/v1/models", trust_env=False).raise_for_status().json()["data"]
    return {model["id"] for model in models}


def friendo(gateway: Gateway, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "gateway", "nodes", *arguments, "--admin", gateway.admin_url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_an_adapter_answers_as_itself_until_it_is_unloaded(
    pair: tuple[EngineNode, ...], adapters: dict[str, Path]
) -> None:
    """By its bare name, which SGLang alone would answer with its base model; unknown names are 404."""
    first = pair[0]
    with (
        running_gateway(*(f"{one.engine}={one.url}" for one in pair)) as gateway,
        control(gateway) as admin,
    ):
        assert 404 == ask(gateway.url, QUESTION, model="warm").status
        base = ask(gateway.url, QUESTION, max_tokens=16)
        assert {"warm": MODEL_NAME} == load(admin, first, "warm", adapters["warm"]).json()["adapters"]
        assert f"Node {first.name} serves cold." in friendo(
            gateway, "load", first.name, "cold", str(adapters["cold"])
        )
        assert {MODEL_NAME, "warm", "cold"} == listed(gateway)

        warm = ask(gateway.url, QUESTION, model="warm", max_tokens=16)
        cold = ask(gateway.url, QUESTION, model="cold", max_tokens=16, stream=True)
        assert {200} == {base.status, warm.status, cold.status}
        assert 3 == len({base.text, warm.text, cold.text})
        straight = "warm" if first.engine == "vllm" else f"{MODEL_NAME}:warm"
        assert warm.text == ask(first.url, QUESTION, model=straight, max_tokens=16).text
        assert base.text == ask(gateway.url, QUESTION, max_tokens=16).text
        assert first.name == warm.node == cold.node

        refused = load(admin, first, "again", adapters["warm"] / "nowhere")
        assert 400 <= refused.status_code < 500
        assert "nowhere" in refused.json()["error"]["message"]

        assert {"cold": MODEL_NAME} == unload(admin, first, "warm").json()["adapters"]
        friendo(gateway, "unload", first.name, "cold")
        assert {MODEL_NAME} == listed(gateway)
        assert 404 == ask(gateway.url, QUESTION, model="warm").status
        assert 404 == unload(admin, first, "warm").status_code


def test_a_conversation_with_an_adapter_is_its_own(
    pair: tuple[EngineNode, ...], adapters: dict[str, Path]
) -> None:
    """It is remembered and cached under the adapter's name, and goes where the adapter is."""
    second = pair[1]
    persona = {"role": "system", "content": "You are Luna, a kind companion who lives by the sea. " * 4}
    with (
        running_gateway(*(f"{one.engine}={one.url}" for one in pair)) as gateway,
        control(gateway) as admin,
    ):
        load(admin, second, "warm", adapters["warm"]).raise_for_status()
        told = [
            ask(
                gateway.url,
                f"Fact {number}: the harbour has {number} boats.",
                before=(persona,) if number == 0 else (),
                model="warm",
                conversation="with an adapter",
            )
            for number in range(4)
        ]
        unload(admin, second, "warm").raise_for_status()

    assert {(200, second.name)} == {(one.status, one.node) for one in told}
    assert "bound" == told[-1].route
    assert all(later.cached > earlier.cached for earlier, later in pairwise(told[1:]))
