"""Dialogues through a gateway in front of recorded engines, and what each of their turns found cached."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from bench.engines.account import Entry, accounts, drift, is_cut, share_found
from bench.engines.launch import MODEL_NAME, SglangTraits
from bench.engines.node import Counters, EngineNode, Traits, counters
from bench.engines.recorder import Call, Recorder, recorded
from tests.gateway_process import Gateway, running_gateway

PERSONA = (
    "You are {name}, a kind companion who lives by the sea, keeps bees, and likes long walks in the evening. "
    "You answer in one short sentence."
)
COLOURS = ("red", "blue", "green", "white", "yellow")
ANSWER_TOKENS = 8
ANSWERED_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what the gateway promised, and the engine's account of it."""

    dialogue: str
    number: int
    route: str
    node: str
    expected: int
    entry: Entry
    is_cut: bool
    drift: int
    """Tokens of the answer before that came back as others."""

    @property
    def difference(self) -> int:
        """By how much the promise was wrong."""
        return abs(self.expected - self.entry.call.cached)


@dataclass(frozen=True, slots=True)
class Measured:
    """All turns of some dialogues, every call that the engines answered meanwhile, and what those counted."""

    turns: tuple[Turn, ...]
    entries: tuple[Entry, ...]
    counted: Counters
    block: int

    @property
    def share(self) -> float:
        """Of the tokens of turns that a cache could have given, those that came from one."""
        return share_found([turn.entry for turn in self.turns])

    @property
    def kept_promises(self) -> float:
        """The share of follow-ups without a cut that found what was expected, within a block."""
        plain = [turn for turn in self.turns if turn.number and not turn.is_cut]
        return sum(turn.difference <= self.block for turn in plain) / len(plain)

    def table(self, title: str) -> str:
        """Everything, for people."""
        head = "dialogue turn route    prompt reusable cached expected  cut drift"
        rows = [
            f"{turn.dialogue:8} {turn.number:4} {turn.route:8} {len(turn.entry.call.prompt):6} "
            f"{turn.entry.reusable:8} {turn.entry.call.cached:6} {turn.expected:8}  "
            f"{'cut' if turn.is_cut else '':3} {turn.drift or '':5}"
            for turn in sorted(self.turns, key=lambda turn: (turn.dialogue, turn.number))
        ]
        return "\n".join(("", title, head, *rows, self.summary()))

    def summary(self) -> str:
        """The figures."""
        prompt = sum(len(turn.entry.call.prompt) for turn in self.turns)
        cached = sum(turn.entry.call.cached for turn in self.turns)
        plain = [turn for turn in self.turns if turn.number and not turn.is_cut]
        cuts = [turn for turn in self.turns if turn.is_cut]
        drifted = sum(turn.drift > 0 for turn in self.turns)
        return (
            f"{len(self.turns)} turns, {len(cuts)} of them cuts: hit {cached / prompt:.3f}, "
            f"{(prompt - cached) / len(self.turns):.0f} uncached tokens a turn\n"
            f"found of what could be reused: {self.share:.4f}; "
            f"at cuts alone {share_found([turn.entry for turn in cuts]):.4f}\n"
            f"expected within a block of found: {self.kept_promises:.4f} of {len(plain)} other follow-ups\n"
            f"answers that were tokenised otherwise when they came back: {drifted} of {len(self.turns)}\n"
            f"the engines counted {self.counted.cached} cached of {self.counted.prompt} prompt tokens in "
            f"{len(self.entries)} calls"
        )


@dataclass(frozen=True, slots=True)
class Bench:
    """Engines behind recorders behind a gateway."""

    nodes: tuple[EngineNode, ...]
    recorders: tuple[Recorder, ...]
    gateway: Gateway
    client: httpx.AsyncClient

    async def counted(self) -> Counters:
        """What all the engines counted so far."""
        return sum([await counters(node) for node in self.nodes], start=Counters())

    async def measure(self, names: Sequence[str], turns: int, *, block: int) -> Measured:
        """Hold these dialogues side by side."""
        before = await self.counted()
        said = await asyncio.gather(*(self._converse(name, at, turns) for at, name in enumerate(names)))
        await self.quiet()
        entries = accounts([call for one in self.recorders for call in one.calls], block=block)
        by_seed = {entry.call.body["seed"]: entry for entry in entries if "seed" in entry.call.body}
        rows: list[Turn] = []
        for answers in said:
            calls = [by_seed[seed] for _, seed, _ in answers]
            for number, ((name, _, answer), entry) in enumerate(zip(answers, calls, strict=True)):
                before_call = calls[number - 1].call if number else None
                rows.append(_turn(name, number, answer, entry, before_call))
        return Measured(tuple(rows), tuple(entries), await self.counted() - before, block)

    async def quiet(self) -> None:
        """Wait until the gateway's own calls have ended, too."""
        still = 0
        while still < 5:
            counts = [len(one.calls) for one in self.recorders]
            await asyncio.sleep(0.5)
            busy = any(one.running for one in self.recorders)
            still = still + 1 if not busy and counts == [len(one.calls) for one in self.recorders] else 0

    async def _converse(self, name: str, at: int, turns: int) -> list[tuple[str, int, httpx.Response]]:
        answers = []
        for turn in range(turns):
            seed = 1000 * (at + 1) + turn
            answers.append((name, seed, await self.say(name, turn, seed=seed)))
        return answers

    async def say(self, name: str, turn: int, *, seed: int) -> httpx.Response:
        """One turn: only what is new."""
        text = f"{name}, fact {turn}: boat {turn * 7} in the harbour is {COLOURS[turn % 5]}. What do you say?"
        messages = [{"role": "user", "content": text}]
        if turn == 0:
            messages.insert(0, {"role": "system", "content": PERSONA.format(name=name)})
        body = {"model": MODEL_NAME, "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0}
        body |= {"seed": seed}  # tells the calls apart, and changes nothing of an answer at temperature 0
        answer = await self.client.post("/v1/chat/completions", json=body, headers={"x-session-id": name})
        assert 200 == answer.status_code, answer.text
        return answer


@asynccontextmanager
async def bench(nodes: Sequence[EngineNode], options: tuple[str, ...]) -> AsyncIterator[Bench]:
    """A gateway with these options over these engines, each of their ranks a node of its own."""
    async with AsyncExitStack() as stack:
        recorders = [await stack.enter_async_context(recorded(one.url, node=one.name)) for one in nodes]
        listed = [
            {"engine": node.engine, "url": one.url, **rank}
            for node, one in zip(nodes, recorders, strict=True)
            for rank in _ranks(node.traits)
        ]
        process = running_gateway(options=("--config", "config/dev.yaml", *options, *configured(listed)))
        gateway = await asyncio.to_thread(process.__enter__)
        stack.push_async_callback(asyncio.to_thread, process.__exit__, None, None, None)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=gateway.url, timeout=ANSWERED_WITHIN_S, trust_env=False)
        )
        yield Bench(tuple(nodes), tuple(recorders), gateway, client)


def configured(nodes: Sequence[dict[str, object]]) -> tuple[str, ...]:
    """The options of a gateway over these nodes."""
    return ("--set", f"nodes={json.dumps(nodes)}")


def _ranks(traits: Traits) -> list[dict[str, int]]:
    count = traits.ranks if isinstance(traits, SglangTraits) else 1
    return [{"rank": rank} for rank in range(count)] if count > 1 else [{}]


def _turn(name: str, number: int, answer: httpx.Response, entry: Entry, before: Call | None) -> Turn:
    told = answer.headers
    return Turn(
        dialogue=name,
        number=number,
        route=told["x-friendo-route"],
        node=entry.call.node,
        expected=int(told["x-friendo-cached-expected"]),
        entry=entry,
        is_cut=before is not None and is_cut(before, entry.call),
        drift=0 if before is None else drift(before, entry.call),
    )
