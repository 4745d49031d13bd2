"""What is measured for docs/answers.md: the command of each part, and what is kept of its result. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

Kept = dict[str, Any]


class Part(msgspec.Struct, frozen=True):
    """One measurement."""

    about: str
    command: tuple[str, ...]
    """After the Python of this project; `{output}` is the file that it writes."""
    minutes: int
    """About, on two processors."""
    keep: Callable[[Any], Kept]


def _arms(result: Any) -> Kept:
    """Of `bench.rivals`: every arm's figures, without the options, which name files."""
    return {"arms": result["arms"]}


def _runs(result: Any) -> Kept:
    """Of `bench.fleet`."""
    shown = ("workload", "contender", "replicas", "seed", "figures")
    return {"runs": [{name: run[name] for name in shown} for run in result["runs"]]}


def _advice(result: Any) -> Kept:
    """Of `friendo advise`: the windows of the advised `min_turns`, and those to compare with."""
    low = result["advice"]["min_turns"]
    windows = [one for one in result["windows"] if _is_compared(one["rule"], low)]
    advice = {name: result["advice"][name] for name in ("min_turns", "max_turns")}
    return {"advice": advice, "windows": [{**one, "recall": {"50": one["recall"]["50"]}} for one in windows]}


def _is_compared(rule: Any, min_turns: int) -> bool:
    return rule["policy"] != "stepped" or (rule["min_turns"] == min_turns and not rule["max_tokens"])


_PEERS = (
    *("--only", "round robin, sliding", "vllm-router consistent_hash, sliding"),
    *(
        "vllm-router consistent_hash, stepped",
        "smg cache_aware, sliding",
        "smg cache_aware, stepped",
        "friendo",
    ),
)
_REAL = ("-m", "bench.rivals", "--pace", "60", "--by-token", "--engine")
_FLEET = ("-m", "bench.fleet", "--output", "{output}")

PARTS: Mapping[str, Part] = {
    "vllm": Part(
        "24 dialogues of 40 turns on two real vLLM nodes, through each router",
        (*_REAL, "vllm", "--output", "{output}", *_PEERS),
        60,
        _arms,
    ),
    "sglang": Part(
        "the same on two real SGLang nodes",
        (*_REAL, "sglang", "--output", "{output}", *_PEERS),
        60,
        _arms,
    ),
    "calibration": Part(
        "the simulator's cache and its clock against a real vLLM node",
        ("-m", "bench.calibration", "--output", "{output}"),
        10,
        dict,
    ),
    "windows": Part(
        "made-up companion traffic replayed under every window",
        (
            "-m",
            "gateway",
            "advise",
            "--generate",
            "200",
            "--seed",
            "1",
            "--json",
            "{output}",
            "--html",
            "{output}.html",
        ),
        2,
        _advice,
    ),
    "short-caches": Part(
        "caches for half of what is talked about, simulated",
        (*_FLEET, "--workload", "companions"),
        3,
        _runs,
    ),
    "trace": Part("Mooncake's recorded hour, simulated", (*_FLEET, "--workload", "trace"), 3, _runs),
}
