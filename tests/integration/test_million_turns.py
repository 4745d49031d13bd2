"""The store's benchmark in small: a turn costs the same in a long dialogue as in a short one."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

TURNS = 20_000


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What a run with a fiftieth of the turns found."""
    output: Path = tmp_path_factory.mktemp("bench") / "report.json"
    command = [sys.executable, "-m", "bench.million_turns", "--turns", str(TURNS), "--conversations", "400"]
    subprocess.run([*command, "--samples", "300", "--output", str(output)], check=True, timeout=110)
    found: Mapping[str, Any] = msgspec.json.decode(output.read_bytes())
    return found


def moved(report: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Bytes per turn, by the form of the history and the dialogue's length."""
    found: dict[str, dict[int, float]] = {}
    for row in report["costs"]:
        found.setdefault(row["form"], {})[row["length"]] = row["sent"] + row["received"]
    return found


def test_a_turn_moves_the_same_bytes_at_turn_10_and_at_turn_10_000(report: Mapping[str, Any]) -> None:
    """Within a tenth, wherever window and memory are full: the shipped ones are so at turn 1,000."""
    small, shipped = moved(report).values()

    assert small[10] == pytest.approx(small[10_000], rel=0.1)
    assert shipped[1_000] == pytest.approx(shipped[10_000], rel=0.1)
    assert shipped[10] < shipped[10_000]


def test_every_turn_took_two_round_trips(report: Mapping[str, Any]) -> None:
    """At any length, in a full store and in an empty one, one at a time and many."""
    trips = {row["round_trips"] for row in report["costs"]}
    trips |= {row["trips_per_turn"] for row in report["waits"]}

    assert {2.0} == trips


def test_every_byte_of_the_store_is_accounted_for(report: Mapping[str, Any]) -> None:
    """The parts are all there is, turns are most of it, and what no part explains is little."""
    memory, written = report["memory"], report["load"]["written"]

    assert TURNS == written["turns"]
    assert memory["used"] == sum(memory["parts"].values())
    assert memory["parts"]["turns"] > written["text_bytes"]
    assert abs(memory["parts"]["everything else"]) < memory["used"] / 10
