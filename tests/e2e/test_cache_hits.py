"""Two real CPU nodes, two interleaved dialogues: what the engine says it had cached, turn by turn."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from openai import OpenAI

from tests.gateway_process import Gateway, running_gateway

TURNS, SLIDING_TURNS = 16, 10
STEPPED = (
    *("--set", "history.rules.window.min_turns=4", "--set", "history.rules.window.max_turns=8"),
    *("--set", "history.rules.compaction.enabled=false", "--set", "history.rules.recall.enabled=false"),
    *("--set", "history.upkeep.prewarm=false"),
)
"""Cuts 5 turns when a ninth would be shown: in 16 turns, twice. The window alone; see bench.cut_cost."""
SLIDING = (
    *("--set", "history.rules.window={policy: last_n, min_turns: 1, max_turns: 4}"),
    *STEPPED[4:],
)


@dataclass(frozen=True, slots=True)
class Row:
    """One turn as the client saw it."""

    turn: int
    node: str
    route: str
    prompt: int
    completion: int
    expected: int
    cached: int


@contextlib.contextmanager
def cpu_node() -> Iterator[str]:
    """A real llama.cpp node with the small model; gives its URL."""
    command = [sys.executable, "-m", "gateway.local.cpu_node", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[str, str]]:
    """Two of them."""
    with cpu_node() as one, cpu_node() as other:
        yield f"openai={one}", f"openai={other}"


def talk(gateway: Gateway, name: str, turns: int) -> list[Row]:
    """A dialogue of so many turns; only what is new is sent."""
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none", timeout=110, max_retries=0)
    rows = []
    for turn in range(turns):
        text = (
            f"{name}, fact {turn}: boat {turn * 7} is {('red', 'blue', 'green')[turn % 3]}. Answer briefly."
        )
        messages = [{"role": "user", "content": text}]
        if turn == 0:
            persona = f"You are {name}, a kind companion. You answer in one short sentence."
            messages.insert(0, {"role": "system", "content": persona})
        answer = client.chat.completions.with_raw_response.create(
            model="smollm2",
            messages=messages,  # type: ignore[arg-type] # plain dictionaries, as most people write them
            max_tokens=6,
            temperature=0,
            extra_headers={"x-session-id": name},
        )
        usage = answer.parse().usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        rows.append(
            Row(
                turn=turn,
                node=answer.headers["x-friendo-node"],
                route=answer.headers["x-friendo-route"],
                prompt=usage.prompt_tokens,
                completion=usage.completion_tokens,
                expected=int(answer.headers["x-friendo-cached-expected"]),
                cached=usage.prompt_tokens_details.cached_tokens or 0,
            )
        )
    return rows


def interleaved(
    nodes: tuple[str, str], names: tuple[str, str], options: tuple[str, ...], turns: int
) -> dict[str, list[Row]]:
    """Both dialogues at once through one gateway."""
    rows: dict[str, list[Row]] = {}
    with running_gateway(*nodes, options=("--model", "smollm2", *options)) as gateway:
        threads = [
            threading.Thread(target=lambda name=name: rows.update({name: talk(gateway, name, turns)}))
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return rows


def table(title: str, rows: dict[str, list[Row]]) -> str:
    lines = [f"\n{title}", "dialogue turn  node             route  prompt  expected  cached  uncached"]
    for name, turns in rows.items():
        lines += [
            f"{name:8} {row.turn:4}  {row.node:16} {row.route:6} {row.prompt:6}  {row.expected:8}"
            f"  {row.cached:6}  {row.prompt - row.cached:8}"
            for row in turns
        ]
    every = [row for turns in rows.values() for row in turns]
    prompt, cached = sum(row.prompt for row in every), sum(row.cached for row in every)
    lines.append(
        f"hit rate {cached / prompt:.3f}, {(prompt - cached) / len(every):.0f} uncached tokens a turn"
    )
    return "\n".join(lines)


def is_cut(rows: list[Row], turn: int) -> bool:
    """Whether the prompt lost turns since the one before: it is shorter than what the node had then."""
    return turn > 0 and rows[turn].prompt < rows[turn - 1].prompt + rows[turn - 1].completion


def uncached_per_turn(rows: dict[str, list[Row]]) -> float:
    """After the first turns, that is while the windows are full."""
    full = [row for turns in rows.values() for row in turns[5:]]
    return sum(row.prompt - row.cached for row in full) / len(full)


@pytest.mark.timeout(400)
def test_stepped_window_hits_exactly_as_expected_and_a_sliding_one_collapses(
    nodes: tuple[str, str],
) -> None:
    """Every turn that is not a cut: cached tokens equal the expected ones within one, on one node."""
    stepped = interleaved(nodes, ("Luna", "Nova"), STEPPED, TURNS)
    sliding = interleaved(nodes, ("Vega", "Lyra"), SLIDING, SLIDING_TURNS)
    print(table("stepped window, 4 to 8 turns", stepped))  # to be seen with -rP
    print(table("sliding window, the last 4 turns", sliding))

    for rows in stepped.values():
        cuts = [row.turn for row in rows if is_cut(rows, row.turn)]
        assert [9, 14] == cuts
        assert len({row.node for row in rows}) == 1
        for before, row in pairwise(rows):
            if row.turn not in cuts:
                assert abs(row.cached - row.expected) <= 1
                assert abs(row.cached - (before.prompt + before.completion - 1)) <= 1
    assert uncached_per_turn(stepped) < uncached_per_turn(sliding) / 2
