"""Two gateway processes, one conversation, one hundred messages at once.

The order that is promised is that of arrival: a gateway numbers a request when it has read it, and turns
are stored in the order in which the store first heard of them. It is not the order in which a client began to
send: on a busy machine a request on a connection that is kept alive is read before an earlier one whose
connection is still to be accepted. So this looks at what reached the store, not at what left the client.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from redis.asyncio import Redis

from history.redis_link import load_script
from tests.gateway_process import Gateway, running_gateway, running_stub

TURNS = 100
OPTIONS = ("--set", "history.rules.queue_limit=200", "--set", "history.rules.window.policy=all")
_BEGIN, _COMMIT = (load_script(name, prelude="slot").sha for name in ("begin", "commit"))


@dataclass
class Ledger:
    """What the store was told of one conversation."""

    tickets: list[str] = field(default_factory=list)
    """Owners, in the order of their first `begin`."""
    written: list[tuple[str, str]] = field(default_factory=list)
    """Who wrote which message, in order."""

    def note(self, command: str) -> None:
        """A script call as the server's monitor shows it: digest, number of keys, keys, schema, owner."""
        parts = command.split(" ")
        if parts[0] != "EVALSHA" or parts[1] not in (_BEGIN, _COMMIT):
            return
        owner = parts[4 + int(parts[2])]
        if parts[1] == _BEGIN and owner not in self.tickets:
            self.tickets.append(owner)
        if parts[1] == _COMMIT and (said := re.search(r"message \d+", command)):
            self.written.append((owner, said[0]))


@contextlib.asynccontextmanager
async def watched(url: str, conversation: str) -> AsyncIterator[Ledger]:
    """Everything that the server is told of this conversation meanwhile."""
    ledger, last = Ledger(), f"{conversation} is over"
    async with Redis.from_url(url) as server, Redis.from_url(url) as voice, server.monitor() as monitor:

        async def listen() -> None:
            async for entry in monitor.listen():
                if last in entry["command"]:
                    return
                if conversation in entry["command"]:
                    ledger.note(entry["command"])

        listening = asyncio.create_task(listen())
        yield ledger
        await voice.echo(last)
        await asyncio.wait_for(listening, 30)


async def say(client: httpx.AsyncClient, gateway: Gateway, conversation: str, text: str) -> str:
    answer = await client.post(
        f"{gateway.url}/v1/chat/completions",
        headers={"x-session-id": conversation},
        json={"model": "stub", "messages": [{"role": "user", "content": text}], "max_tokens": 4},
    )
    assert answer.status_code == 200, answer.text
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


async def race(gateways: list[Gateway], conversation: str, url: str) -> tuple[list[str], Ledger]:
    """Every message while others are being answered, by turns to each gateway; the answers in that order."""

    async def one(client: httpx.AsyncClient, number: int) -> str:
        await asyncio.sleep(number * 0.004)
        return await say(client, gateways[number % 2], conversation, f"message {number}")

    limits = httpx.Limits(max_connections=TURNS)
    async with watched(url, conversation) as ledger, httpx.AsyncClient(timeout=90, limits=limits) as client:
        answers = await asyncio.gather(*(one(client, number) for number in range(TURNS)))
    return answers, ledger


def spoken(prompt: list[dict[str, Any]], role: str) -> list[str]:
    return [message["content"] for message in prompt if message["role"] == role]


def test_hundred_racing_turns_lose_double_and_reorder_nothing(valkey_url: str) -> None:
    """Each turn sees all turns before it, nobody is forgotten, and who came first is answered first."""
    conversation = f"race-{uuid.uuid4().hex}"
    with contextlib.ExitStack() as stack:
        stub = stack.enter_context(running_stub(context_length=100_000, blocks=100_000))
        options = ("--redis", valkey_url, *OPTIONS)
        gateways = [
            stack.enter_context(running_gateway(f"vllm={stub.url}", options=options)) for _ in range(2)
        ]
        # A server that does not know a script yet refuses the first call, and the monitor shows that as well.
        asyncio.run(speak(gateways[0], f"warm-{uuid.uuid4().hex}", "hello"))
        answers, ledger = asyncio.run(race(gateways, conversation, valkey_url))
        asyncio.run(speak(gateways[0], conversation, "the end"))
        dialogue = stub.prompts()[-1]

    asked = spoken(dialogue, "user")[:-1]
    assert sorted(f"message {n}" for n in range(TURNS)) == sorted(asked)
    told = dict(zip(asked, spoken(dialogue, "assistant"), strict=True))
    assert {f"message {n}": answer for n, answer in enumerate(answers)} == told
    assert [text for _, text in ledger.written] == asked
    assert ledger.tickets == [owner for owner, _ in ledger.written]
    numbers = numbers_of_each(ledger.tickets)
    assert [TURNS // 2] * 2 == [len(mine) for mine in numbers]
    assert [sorted(mine) for mine in numbers] == numbers


async def speak(gateway: Gateway, conversation: str, text: str) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        await say(client, gateway, conversation, text)


def numbers_of_each(owners: list[str]) -> list[list[int]]:
    """By replica, the numbers that it gave to its requests as they arrived."""
    found: dict[str, list[int]] = {}
    for replica, _, number in (owner.rpartition("-") for owner in owners):
        found.setdefault(replica, []).append(int(number))
    return list(found.values())
