"""`max_turns: auto` in a gateway of its own: what it found, and from what, stands on the admin port."""

import asyncio
from typing import Any

import httpx

from tests.gateway_process import running_gateway, running_stub

CONVERSATIONS, TURNS = 10, 16


async def talk(client: httpx.AsyncClient, name: str) -> None:
    for turn in range(TURNS):
        body = {
            "model": "stub",
            "conversation": name,
            "messages": [{"role": "user", "content": f"Part {turn} of a story about a lighthouse."}],
        }
        (await client.post("/v1/chat/completions", json=body)).raise_for_status()


async def everybody(url: str) -> None:
    async with (
        httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(CONVERSATIONS):
            group.create_task(talk(client, f"talk-{number}"))


def window_of(admin_url: str) -> dict[str, Any]:
    answer = httpx.get(f"{admin_url}/admin/cache", trust_env=False)
    answer.raise_for_status()
    window: dict[str, Any] = answer.json()["window"]
    return window


def test_window_is_found_and_told() -> None:
    options = ("--set", "history.rules.window.min_turns=3", "--set", "history.rules.window.max_turns=auto")
    with running_stub() as stub, running_gateway(f"vllm={stub.url}", options=options) as gateway:
        assert window_of(gateway.admin_url) == {
            "policy": "stepped",
            "min_turns": 3,
            "max_turns": 6,
            "is_auto": True,
            "finding": None,
        }
        asyncio.run(everybody(gateway.url))
        window = window_of(gateway.admin_url)
        shown = max(len(prompt) for prompt in stub.prompts())

    finding = window["finding"]
    assert finding["max_turns"] == window["max_turns"]
    assert 4 <= window["max_turns"] <= 24
    assert finding["pauses"] > CONVERSATIONS
    assert (finding["is_full"], finding["share_cold"]) == (False, 0.0)
    assert 0 < finding["cost"] <= finding["cost_before"]
    assert shown <= 2 + 2 * 2 * 24


def test_a_fixed_window_looks_for_nothing() -> None:
    with running_stub() as stub, running_gateway(f"vllm={stub.url}") as gateway:
        window = window_of(gateway.admin_url)
    assert (window["max_turns"], window["is_auto"], window["finding"]) == (40, False, None)
