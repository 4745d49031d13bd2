"""`python -m bench.rivals`: the same dialogues through every arm, one after the other, and a table.

Gaps are as published of a real chat service, played faster (`--pace`); each arm begins with empty caches.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.overhead.peers import PeerUnavailableError
from bench.rivals.arms import ARMS, Arm
from bench.rivals.fleet import Fleet, since, stub_fleet
from bench.rivals.player import Play, play
from bench.rivals.report import of_arms
from bench.rivals.script import Crowd, Script, scripts
from bench.rivals.stage import NotReadyError, entrances
from bench.rivals.tally import Figures, figures
from bench.stub_node.spec import StubSpec
from bench.stub_node.tokens import encode
from history.window import WindowRule

RESULTS = Path(__file__).resolve().parents[1] / "results" / "rivals.json"
_TEMPLATE_TOKENS = 5
"""That the chat template puts around a message."""

_SETTINGS = ("history.rules.compaction.max_tokens=200",)
"""A stub's summary is as long as it may be; a model's is about that, if it may have 400."""


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.rivals", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ARM", help="arms whose names contain one of these")
    parser.add_argument("--dialogues", type=int, default=40)
    parser.add_argument("--turns", type=int, default=120)
    parser.add_argument("--min-turns", type=int, default=20)
    parser.add_argument("--max-turns", type=int, default=40)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument(
        "--cache",
        type=float,
        default=0.5,
        help="of all nodes together, by the working set of a stepped client",
    )
    parser.add_argument("--pace", type=float, default=200.0, help="how many times faster than people talk")
    parser.add_argument("--prefill-rate", type=float, default=40_000.0, help="tokens a second, of one node")
    parser.add_argument("--decode-rate", type=float, default=2_000.0)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="more settings of the gateway's arms"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every-turn", type=Path, help="a file for every turn of the last arm, as JSON")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


async def run(asked: argparse.Namespace) -> dict[str, Figures | str]:
    """Every arm that was asked for."""
    crowd = Crowd(dialogues=asked.dialogues, turns=asked.turns)
    rule = WindowRule(min_turns=asked.min_turns, max_turns=asked.max_turns)
    people = scripts(crowd, asked.seed)
    held = int(asked.cache * working_set(people, rule, crowd.answer_tokens) / asked.nodes)
    spec = StubSpec(
        model="small",
        block_size=16,
        context_length=min(16_384, held // 16 * 16),
        blocks=held // 16,
        prefill_rate=asked.prefill_rate,
        decode_rate=asked.decode_rate,
    )
    found: dict[str, Figures | str] = {}
    async with stub_fleet(asked.nodes, spec) as fleet:
        for arm in chosen(asked.only):
            settings = [*_SETTINGS, f"routing.retention_s={1800 / asked.pace}", *asked.set]
            try:
                found[arm.name] = await one_arm(arm, fleet, people, rule, asked, settings)
            except (NotReadyError, PeerUnavailableError) as reason:
                found[arm.name] = str(reason)
            say(of_arms({arm.name: found[arm.name]}))
    return found


async def one_arm(
    arm: Arm,
    fleet: Fleet,
    people: Sequence[Script],
    rule: WindowRule,
    asked: argparse.Namespace,
    settings: Sequence[str],
) -> Figures:
    """All dialogues through one arm."""
    await fleet.forget()
    how = Play(fleet.model, arm.keeping, rule, Crowd().answer_tokens, asked.pace)
    stage = entrances(arm, fleet, rule, replicas=asked.replicas, settings=settings)
    urls = await asyncio.to_thread(stage.__enter__)
    try:
        before, asked_before = await fleet.counts(), await fleet.requests()
        progress = Progress(arm.name, len(people) * len(people[0].said))
        heard = await play(people, urls, how, progress.step)
        after, asked_after = await fleet.counts(), await fleet.requests()
    finally:
        await asyncio.to_thread(stage.__exit__, None, None, None)
    if asked.every_turn:
        asked.every_turn.write_bytes(msgspec.json.encode(heard.dialogues))
    for fault in heard.faults[:5]:
        say(fault)
    return figures(
        heard.dialogues,
        since(before, after),
        [new - old for old, new in zip(asked_before, asked_after, strict=True)],
        block=fleet.block,
        failed=len(heard.faults),
    )


def working_set(people: Sequence[Script], rule: WindowRule, answer_tokens: int) -> int:
    """Tokens of everybody's window at its mean, and of the personas, as a stub counts them."""
    shown = (rule.min_turns + rule.max_turns) / 2
    said = sum(len(encode(text)) for one in people for text in one.said) / len(people[0].said)
    turns = shown * (said + len(people) * (answer_tokens + 2 * _TEMPLATE_TOKENS))
    return int(turns + sum(len(encode(text)) for text in {one.persona for one in people}))


def chosen(only: Sequence[str] | None) -> list[Arm]:
    """The arms whose names contain what was asked for."""
    return [arm for arm in ARMS if not only or any(part in arm.name for part in only)]


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
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    document = {"options": {name: str(value) for name, value in vars(asked).items()}, "arms": found}
    asked.output.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))
    print(of_arms(found))


if __name__ == "__main__":
    main()
