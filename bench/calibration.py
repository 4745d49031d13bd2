"""`python -m bench.calibration`: how far the simulator of `bench.fleet` can be believed, against a real vLLM.

Two of its models, apart. *The cache*: dialogues whose KV does not fit into one node, one request at a time;
the simulator's cache is given the same token ids and says of each prompt how much of it should be found. *The
time to the first token*: prompts of different lengths, partly cached, on an idle node; from half of them the
prefill rate is fitted, as one would measure it, and the other half is foretold by `Card.prefill_work`.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import xxhash

from bench.engines.launch import MODEL_NAME, VllmTraits
from bench.engines.node import running
from bench.engines.places import places
from bench.fleet.cache import ExtentCache
from bench.fleet.card import A10G_7B, Card
from bench.rivals.script import Crowd, Script, scripts
from bench.rivals.window import messages
from history.window import WindowRule

BLOCK = 32
KV_TOKENS = 4096
"""Of the node: a third of what the dialogues' windows have."""
CROWD = Crowd(dialogues=20, turns=20, persona_words=60, answer_tokens=12)
RULE = WindowRule(min_turns=6, max_turns=12)
LENGTHS = (96, 192, 320, 480, 640, 960, 1280)
"""Words of what is new in a prompt, about a token each."""
CACHED = (0, 200, 600)
"""Words of what the prompt begins with and the node has."""
ROUNDS = 4
_WITHIN_S = 120.0
_WORDS = ("river", "stone", "light", "garden", "letter", "window", "silver", "morning", "paper", "winter")


class Cached(msgspec.Struct, frozen=True):
    """What the cache model said of the turns, and what the engine found."""

    turns: int
    hit: float
    """Cached by all tokens, by the engine."""
    foretold_hit: float
    exact: float
    """Share of turns whose cached tokens are equal to the token."""
    within_a_block: float
    evicting: float
    """Share of turns that found less than the turn before had left: some of it was evicted."""


class FirstToken(msgspec.Struct, frozen=True):
    """Times to the first token: of the half that was not used for fitting."""

    requests: int
    prefill_rate: float
    """Tokens a second without any context."""
    overhead_s: float
    median_error: float
    """|foretold - measured| / measured."""
    p90_error: float


class SimulatedCache:
    """The simulator's cache, told token ids: every block is an extent of its own."""

    def __init__(self, kv_tokens: int) -> None:
        self._cache = ExtentCache(kv_tokens // BLOCK)
        self._names: dict[bytes, int] = {}
        self._now = 0.0

    def ask(self, prompt: Sequence[int], answer: Sequence[int]) -> int:
        """What a prompt finds, in tokens; afterwards it and its answer are there."""
        blocks = self._blocks((*prompt, *answer[:-1]))
        whole = len(prompt) // BLOCK
        asked, rest = [(name, 1) for name in blocks[:whole]], blocks[whole:]
        # What a prompt has beyond its whole blocks is held while it runs, too.
        reserve = -(-(len(prompt) + len(answer)) // BLOCK) - whole
        found = self._cache.acquire(asked, reserve)
        assert found is not None, "a prompt fits into the cache"
        self._now += 1.0
        for name in reversed(rest):
            if not self._cache.stored(name):
                self._cache.release((), 0, self._now, answer=(name, 1))
        self._cache.release(asked, reserve, self._now)
        return min(found, (len(prompt) - 1) // BLOCK) * BLOCK

    def _blocks(self, tokens: Sequence[int]) -> list[int]:
        """The names of its whole blocks: each by its tokens and all before."""
        names, before = [], b""
        for at in range(0, len(tokens) - BLOCK + 1, BLOCK):
            before = xxhash.xxh3_128_digest(before + repr(tokens[at : at + BLOCK]).encode())
            names.append(self._names.setdefault(before, len(self._names)))
        return names


async def cache_model(client: httpx.AsyncClient, people: Sequence[Script], seed: int) -> Cached:
    """Everybody's turns in a mixed order: some talk a lot at once, others come back late."""
    order = [number for number, one in enumerate(people) for _ in one.said]
    drawn = random.Random(seed)
    drawn.shuffle(order)
    order.sort(key=lambda number: drawn.random() + number / len(people))  # neighbours meet more often
    simulated, answers = SimulatedCache(KV_TOKENS), [list[str]() for _ in people]
    pairs, left, evicting = list[tuple[int, int, int]](), dict[int, int](), 0
    for done, number in enumerate(order):
        told = await ask(client, messages(people[number], answers[number], "stepped", RULE))
        prompt, answer = told["prompt_token_ids"], told["choices"][0]["token_ids"]
        cached = told["usage"]["prompt_tokens_details"]["cached_tokens"]
        pairs.append((cached, simulated.ask(prompt, answer), len(prompt)))
        answers[number].append(told["choices"][0]["message"]["content"])
        evicting += cached < min(left.get(number, 0), len(prompt) - 1) - BLOCK
        left[number] = len(prompt) + len(answer)
        if done % 100 == 99:
            say(f"{done + 1} of {len(order)} turns")
    tokens = sum(length for *_, length in pairs)
    return Cached(
        turns=len(pairs),
        hit=sum(real for real, *_ in pairs) / tokens,
        foretold_hit=sum(model for _, model, _ in pairs) / tokens,
        exact=sum(real == model for real, model, _ in pairs) / len(pairs),
        within_a_block=sum(abs(real - model) <= BLOCK for real, model, _ in pairs) / len(pairs),
        evicting=evicting / len(pairs),
    )


async def time_model(client: httpx.AsyncClient, seed: int) -> FirstToken:
    """Every combination of cached and new, several times; every second round is foretold."""
    drawn, seen = random.Random(seed), list[list[tuple[int, int, float]]]()
    for round_ in range(ROUNDS):
        seen.append([])
        for cached in CACHED:
            begin = f"{round_} {cached} {text(drawn, cached)}" if cached else ""
            if cached:
                await first_token(client, begin)
            for new in LENGTHS:
                seen[-1].append(await first_token(client, f"{begin} {text(drawn, new)}"))
        say(f"round {round_ + 1} of {ROUNDS}")
    fitting, judged = [one for r in seen[::2] for one in r], [one for r in seen[1::2] for one in r]
    card = msgspec.structs.replace(A10G_7B, attention_tokens=attention_tokens(fitting))
    slope, overhead = fitted(fitting, card)
    errors = sorted(
        abs(overhead + slope * card.prefill_work(cached, uncached) - seconds) / seconds
        for cached, uncached, seconds in judged
    )
    return FirstToken(
        len(judged), 1 / slope, overhead, statistics.median(errors), errors[int(0.9 * len(errors))]
    )


def fitted(seen: Sequence[tuple[int, int, float]], card: Card) -> tuple[float, float]:
    """Seconds per token of work, and those that do not depend on the prompt: least squares."""
    work = [card.prefill_work(cached, uncached) for cached, uncached, _ in seen]
    line = statistics.linear_regression(work, [seconds for *_, seconds in seen])
    return line.slope, line.intercept


def attention_tokens(seen: Sequence[tuple[int, int, float]]) -> int:
    """The context at which attention costs as much as all else, of the few that are tried: the best fit."""

    def miss(context: int) -> float:
        card = msgspec.structs.replace(A10G_7B, attention_tokens=context)
        slope, overhead = fitted(seen, card)
        return sum((overhead + slope * card.prefill_work(c, u) - s) ** 2 for c, u, s in seen)

    contexts: list[int] = [1000 * 2**step for step in range(8)]
    return min(contexts, key=miss)


async def first_token(client: httpx.AsyncClient, content: str) -> tuple[int, int, float]:
    """Cached and uncached tokens of a prompt, and the seconds until its answer began."""
    body = {"max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    began, first, usage = time.perf_counter(), 0.0, dict[str, Any]()
    asked = {
        "model": MODEL_NAME,
        "temperature": 0,
        "messages": [{"role": "user", "content": content}],
        **body,
    }
    async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            said = msgspec.json.decode(line[6:])
            if any(choice["delta"].get("content") for choice in said["choices"]):
                first = first or time.perf_counter() - began
            usage = said.get("usage") or usage
    cached = (usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0
    return cached, usage["prompt_tokens"] - cached, first


async def ask(client: httpx.AsyncClient, said: Sequence[dict[str, str]]) -> dict[str, Any]:
    """One whole answer, with its token ids."""
    body = {"model": MODEL_NAME, "messages": said, "max_tokens": CROWD.answer_tokens, "temperature": 0}
    answer = await client.post("/v1/chat/completions", json={**body, "return_token_ids": True})
    answer.raise_for_status()
    told: dict[str, Any] = answer.json()
    return told


def text(drawn: random.Random, words: int) -> str:
    """So many words that nobody said before."""
    return f"{drawn.randrange(10**6)} {' '.join(drawn.choices(_WORDS, k=words))}"


async def run(seed: int) -> dict[str, Any]:
    """Both models against nodes of their own."""
    where = places(os.environ, Path.home())
    with TemporaryDirectory(prefix="friendo-calibration-") as folder:
        small, ample = VllmTraits(kv_tokens=KV_TOKENS), VllmTraits(kv_tokens=32_768, context=4096)
        async with (
            running(small, places=where, folder=Path(folder)) as (node,),
            httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=_WITHIN_S) as client,
        ):
            cached = await cache_model(client, scripts(CROWD, seed), seed)
        async with (
            running(ample, places=where, folder=Path(folder)) as (node,),
            httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=_WITHIN_S) as client,
        ):
            await first_token(client, "Are you there?")
            first = await time_model(client, seed)
    return {"cache": msgspec.to_builtins(cached), "first_token": msgspec.to_builtins(first)}


def say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibration", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    found = asyncio.run(run(asked.seed))
    for part, figures in found.items():
        print(part, ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    if asked.output:
        asked.output.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
