"""`python -m bench.rivals`: the same dialogues through every arm, one after the other, and a table.

Gaps are as published of a real chat service, played faster (`--pace`); each arm begins with empty caches. The
nodes are stubs whose caches hold half of what is talked about or, with `--engine vllm` or `sglang`, two real
engines on this machine with a small model and room for everything (`make engines-install` first).
"""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.engines.account import accounts, share_found
from bench.engines.places import places
from bench.engines.recorder import Call
from bench.overhead.peers import PeerUnavailableError
from bench.rivals.arms import ARMS, Arm
from bench.rivals.fleet import Fleet, since, stub_fleet
from bench.rivals.player import Play, play
from bench.rivals.real_fleet import real_fleet
from bench.rivals.report import of_arms
from bench.rivals.script import Crowd, Script, scripts
from bench.rivals.stage import NotReadyError, entrances
from bench.rivals.tally import Figures, figures
from bench.stub_node.spec import StubSpec
from bench.stub_node.tokens import encode
from history.window import WindowRule

RESULTS = Path(__file__).resolve().parents[1] / "results"
_TEMPLATE_TOKENS = 5
"""That the chat template puts around a message."""
_STUB_SETTINGS = ("history.rules.compaction.max_tokens=200",)
"""A stub's summary is as long as it may be; a model's is about that, if it may have 400."""


class Scene(msgspec.Struct, frozen=True):
    """What is played by default on nodes of one kind."""

    crowd: Crowd
    rule: WindowRule
    nodes: int
    replicas: int
    pace: float
    kv_tokens: int = 0
    """In each node; 0: by the share of the working set that was asked for."""


SCENES: Mapping[str, Scene] = {
    "stub": Scene(Crowd(), WindowRule(), nodes=3, replicas=2, pace=200.0),
    "vllm": Scene(
        Crowd(dialogues=24, turns=40, persona_words=60, answer_tokens=12),
        WindowRule(min_turns=6, max_turns=12),
        nodes=2,
        replicas=1,
        pace=30.0,
        kv_tokens=49_152,
    ),
}


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.rivals", description=__doc__)
    parser.add_argument("--engine", choices=["stub", "vllm", "sglang"], default="stub")
    parser.add_argument("--only", nargs="+", metavar="ARM", help="arms whose names contain one of these")
    for name in ("dialogues", "turns", "min-turns", "max-turns", "replicas", "nodes"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--pace", type=float, help="how many times faster than people talk")
    parser.add_argument(
        "--cache",
        type=float,
        default=0.5,
        help="of all stubs together, by the working set of a stepped client",
    )
    parser.add_argument("--kv-events", action="store_true", help="stubs publish what they store and evict")
    parser.add_argument("--prefill-rate", type=float, default=40_000.0, help="of one stub, tokens a second")
    parser.add_argument("--decode-rate", type=float, default=2_000.0)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="more settings of the gateway's arms"
    )
    parser.add_argument(
        "--by-token", action="store_true", help="real engines: account by token ids; answers are not streamed"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every-turn", type=Path, help="a file for every turn of the last arm, as JSON")
    parser.add_argument("--output", type=Path)
    return parser


def scene(asked: argparse.Namespace) -> Scene:
    """The default one with what was asked for instead."""
    base = SCENES["stub" if asked.engine == "stub" else "vllm"]
    crowd = {name: value for name in ("dialogues", "turns") if (value := getattr(asked, name)) is not None}
    rule = {name: value for name in ("min_turns", "max_turns") if (value := getattr(asked, name)) is not None}
    rest = {
        name: value for name in ("replicas", "nodes", "pace") if (value := getattr(asked, name)) is not None
    }
    changed = msgspec.structs.replace
    return changed(base, crowd=changed(base.crowd, **crowd), rule=changed(base.rule, **rule), **rest)


async def run(asked: argparse.Namespace) -> dict[str, Figures | str]:
    """Every arm that was asked for."""
    stage = scene(asked)
    people = scripts(stage.crowd, asked.seed)
    found: dict[str, Figures | str] = {}
    async with fleet_of(asked, stage, people) as fleet:
        for arm in chosen(asked.only):
            try:
                found[arm.name] = await one_arm(arm, fleet, people, stage, asked)
            except (NotReadyError, PeerUnavailableError) as reason:
                found[arm.name] = str(reason)
            say(of_arms({arm.name: found[arm.name]}))
    return found


@asynccontextmanager
async def fleet_of(asked: argparse.Namespace, stage: Scene, people: Sequence[Script]) -> AsyncIterator[Fleet]:
    """The nodes."""
    async with contextlib.AsyncExitStack() as stack:
        if asked.engine == "stub":
            held = int(asked.cache * working_set(people, stage) / stage.nodes) // 16
            spec = StubSpec(
                model="small",
                block_size=16,
                context_length=min(16_384, held * 16),
                blocks=held,
                prefill_rate=asked.prefill_rate,
                decode_rate=asked.decode_rate,
                kv_port=0 if asked.kv_events else -1,
            )
            yield await stack.enter_async_context(stub_fleet(stage.nodes, spec))
            return
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="friendo-engines-")))
        engines = real_fleet(
            asked.engine,
            stage.nodes,
            kv_tokens=stage.kv_tokens,
            context=4096,
            places=places(os.environ, Path.home()),
            folder=folder,
            is_recorded=asked.by_token,
        )
        say(f"starting {stage.nodes} nodes of {asked.engine}")
        yield await stack.enter_async_context(engines)


async def one_arm(
    arm: Arm, fleet: Fleet, people: Sequence[Script], stage: Scene, asked: argparse.Namespace
) -> Figures:
    """All dialogues through one arm."""
    await fleet.forget()
    settings = list(asked.set)
    if asked.engine == "stub":  # real engines forget at their own pace
        settings = [*_STUB_SETTINGS, f"routing.retention_s={1800 / stage.pace}", *settings]
    answer = stage.crowd.answer_tokens
    how = Play(fleet.model, arm.keeping, stage.rule, answer, stage.pace, streams=not asked.by_token)
    doors = entrances(arm, fleet, stage.rule, replicas=stage.replicas, settings=settings)
    urls = await asyncio.to_thread(doors.__enter__)
    try:
        before = await fleet.counts()
        heard = await play(people, urls, how, Progress(arm.name, len(people) * stage.crowd.turns).step)
        done = since(before, await fleet.counts())
    finally:
        await asyncio.to_thread(doors.__exit__, None, None, None)
    if asked.every_turn:
        asked.every_turn.write_bytes(msgspec.json.encode(heard.dialogues))
    for fault in heard.faults[:5]:
        say(fault)
    found = figures(heard.dialogues, done, block=fleet.block, failed=len(heard.faults))
    return msgspec.structs.replace(found, by_token=by_token(fleet.taken(), answer, fleet.block))


def by_token(calls: Sequence[Call], answer_tokens: int, block: int) -> float | None:
    """What people's turns found of what any request had left; the gateway's own calls have other lengths."""
    entries = accounts(calls, block=block)
    return (
        share_found([one for one in entries if one.call.body.get("max_tokens") == answer_tokens])
        if calls
        else None
    )


def working_set(people: Sequence[Script], stage: Scene) -> int:
    """Tokens of everybody's window at its mean, and of the personas, as a stub counts them."""
    shown = (stage.rule.min_turns + stage.rule.max_turns) / 2
    said = sum(len(encode(text)) for one in people for text in one.said) / len(people[0].said)
    turns = shown * (said + len(people) * (stage.crowd.answer_tokens + 2 * _TEMPLATE_TOKENS))
    return int(turns + sum(len(encode(text)) for text in {one.persona for one in people}))


def chosen(only: Sequence[str] | None) -> list[Arm]:
    """The arms of these names, or whose names contain what is nobody's name."""
    names = {arm.name for arm in ARMS}
    return [
        arm
        for arm in ARMS
        if not only or any(part == arm.name or (part not in names and part in arm.name) for part in only)
    ]


class Progress:
    """Says now and then how far an arm is."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done, self._at = name, total, 0, time.monotonic()

    def step(self) -> None:
        """One turn more."""
        self._done += 1
        if time.monotonic() - self._at > 10:
            self._at = time.monotonic()
            say(f"{self._name}: {self._done} of {self._total} turns")


def say(text: str) -> None:
    """Progress goes to standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Play, print, write."""
    asked = options().parse_args()
    found = asyncio.run(run(asked))
    output: Path = asked.output or RESULTS / f"rivals-{asked.engine}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    document = {"options": {name: str(value) for name, value in vars(asked).items()}, "arms": found}
    output.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))
    print(of_arms(found))


if __name__ == "__main__":
    main()
