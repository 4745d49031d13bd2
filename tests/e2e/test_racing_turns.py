"""Two gateway processes, one conversation, one hundred messages at once."""

import asyncio
import contextlib
import uuid
from typing import Any

import httpx

from tests.gateway_process import Gateway, running_gateway, running_stub

TURNS = 100
OPTIONS = ("--set", "history.rules.queue_limit=200", "--set", "history.rules.window.policy=all")


async def say(client: httpx.AsyncClient, gateway: Gateway, conversation: str, text: str) -> str:
    answer = await client.post(
        f"{gateway.url}/v1/chat/completions",
        headers={"x-session-id": conversation},
        json={"model": "stub", "messages": [{"role": "user", "content": text}], "max_tokens": 4},
    )
    assert answer.status_code == 200, answer.text
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


async def race(gateways: list[Gateway], conversation: str) -> list[str]:
    """Every message while others are being answered, by turns to each gateway; the answers in that order."""

    async def one(client: httpx.AsyncClient, number: int) -> str:
        # Sent at the very same moment, their order would be the network's.
        await asyncio.sleep(number * 0.004)
        return await say(client, gateways[number % 2], conversation, f"message {number}")

    async with httpx.AsyncClient(timeout=90, limits=httpx.Limits(max_connections=TURNS)) as client:
        return await asyncio.gather(*(one(client, number) for number in range(TURNS)))


def spoken(prompt: list[dict[str, Any]], role: str) -> list[str]:
    return [message["content"] for message in prompt if message["role"] == role]


def test_hundred_racing_turns_lose_double_and_reorder_nothing(valkey_url: str) -> None:
    """Each turn sees all turns before it, and nobody is forgotten."""
    conversation = f"race-{uuid.uuid4().hex}"
    with contextlib.ExitStack() as stack:
        stub = stack.enter_context(running_stub(context_length=100_000, blocks=100_000))
        options = ("--redis", valkey_url, *OPTIONS)
        gateways = [
            stack.enter_context(running_gateway(f"vllm={stub.url}", options=options)) for _ in range(2)
        ]
        answers = asyncio.run(race(gateways, conversation))
        asyncio.run(finish(gateways[0], conversation))
        dialogue = stub.prompts()[-1]

    asked = spoken(dialogue, "user")[:-1]
    assert sorted(f"message {n}" for n in range(TURNS)) == sorted(asked)
    told = dict(zip(asked, spoken(dialogue, "assistant"), strict=True))
    assert {f"message {n}": answer for n, answer in enumerate(answers)} == told
    for replica in range(2):
        assert spoken_by(asked, replica) == sorted(spoken_by(asked, replica))


async def finish(gateway: Gateway, conversation: str) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        await say(client, gateway, conversation, "the end")


def spoken_by(asked: list[str], replica: int) -> list[int]:
    numbers = [int(text.split()[1]) for text in asked]
    return [number for number in numbers if number % 2 == replica]
