"""The tables of docs/answers.md, from the data that the parts left. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.fleet.report import table

_PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, data: Mapping[str, Any]) -> str:
    """The text with every marked table drawn anew. Raises `KeyError` for a table that nobody can draw."""
    return _PLACE.sub(lambda found: f"{found[1]}{_table(found[2], data)}\n{found[3]}", text)


def _table(name: str, data: Mapping[str, Any]) -> str:
    draw = TABLES[name]
    return draw(data) if name in data else f"*Not measured yet: `python -m bench.evidence {name}`.*"


def arms(result: Any) -> str:
    """One router a line, in front of real engines."""
    rows = []
    for name, one in result["arms"].items():
        if isinstance(one, str):
            rows.append([name, "not played", "", "", "", ""])
            continue
        foretold = "" if one["foretold"] is None else f"{one['foretold']:.1%}"
        left = one.get("by_token")  # by the ids themselves, where they were noted
        reused, hit = f"{one['followups_reused'] if left is None else left:.1%}", f"{one['hit']:.1%}"
        rows.append([name, hit, f"{one['uncached']:,.0f}", f"{one['mean_prompt']:,.0f}", reused, foretold])
    head = ["", "hit", "computed a turn", "prompt", "of what could be reused", "foretold within a block"]
    return table(head, rows)


def windows(result: Any) -> str:
    """A few windows of the replay."""
    rows = []
    for one in result["windows"]:
        rule = one["rule"]
        if not _is_shown(rule, result["advice"]):
            continue
        recall = one["recall"]["50"]
        found = f"{recall['in_window']:.0%}"
        if rule["policy"] == "stepped":  # the others are what a client does by itself: it has no recall
            found += f" / {recall['with_recall']:.0%}"
        rows.append(
            [
                _named(rule),
                f"{one['hit']:.1%}",
                f"{one['uncached_per_turn']:,.0f}",
                f"{one['mean_prompt']:,.0f}",
                f"{one['mean_window']:.1f}",
                f"{one['cost_per_turn']:,.0f}",
                found,
            ]
        )
    head = [
        "window",
        "hit",
        "computed a turn",
        "prompt",
        "turns shown",
        "cost of a turn",
        "50 turns back: window / recall",
    ]
    return table(head, rows)


def fleet(result: Any) -> str:
    """Every window under the routers that were tried on it."""
    rows = []
    for run in result["runs"]:
        one = run["figures"]
        if run["workload"] == "companions, stepped client" and run["contender"] not in _STEPPED:
            continue
        if run["workload"] == "companions, sliding client" and run["contender"] not in _SLIDING:
            continue
        if "gateway" in run["workload"] and run["contender"] != "friendo":
            continue
        computed = f"{one['uncached']:,.0f}"
        with_background = f"{one['uncached'] + one['background']:,.0f}"
        times = [f"{one['ttft_p50']:.2f}", f"{one['ttft_p90']:.2f}"]
        rows.append(
            [f"{run['workload']}: {run['contender']}", f"{one['hit']:.1%}", computed, with_background, *times]
        )
    return table(["", "hit", "computed a turn", "with the background", "TTFT p50, s", "p90"], rows)


def calibration(result: Any) -> str:
    """What the simulator said beside what a node did."""
    cache, first = result["cache"], result["first_token"]
    rows = [
        [
            "hit rate, caches a third of what is talked about",
            f"{cache['hit']:.2%}",
            f"{cache['foretold_hit']:.2%}",
        ],
        ["turns foretold to the token", f"{cache['turns']}", f"{cache['exact']:.1%}"],
        ["turns foretold to within a block", f"{cache['turns']}", f"{cache['within_a_block']:.1%}"],
        ["turns that had lost some of their prefix", f"{cache['turns']}", f"{cache['evicting']:.1%}"],
        ["time to the first token, median error", f"{first['requests']}", f"{first['median_error']:.1%}"],
        ["the same, 90th percentile", f"{first['requests']}", f"{first['p90_error']:.1%}"],
    ]
    return table(["", "vLLM, or how many", "simulated, or share"], rows)


_SLIDING = ("consistent hash",)
_STEPPED = ("round robin", "consistent hash", "cache_aware, SMG", "precise, llm-d", "friendo", "oracle")

TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "vllm": lambda data: arms(data["vllm"]),
    "sglang": lambda data: arms(data["sglang"]),
    "calibration": lambda data: calibration(data["calibration"]),
    "windows": lambda data: windows(data["windows"]),
    "short-caches": lambda data: fleet(data["short-caches"]),
    "trace": lambda data: fleet(data["trace"]),
}


def _is_shown(rule: Mapping[str, Any], advice: Mapping[str, Any]) -> bool:
    if rule["max_tokens"]:
        return False
    if rule["policy"] != "stepped":
        return rule["policy"] == "all" or rule["max_turns"] in {20, 40}
    shown: Sequence[int] = (advice["max_turns"], 30, 40, 60, 160)
    return rule["min_turns"] == advice["min_turns"] and rule["max_turns"] in shown


def _named(rule: Mapping[str, Any]) -> str:
    if rule["policy"] == "all":
        return "the whole history"
    if rule["policy"] == "last_n":
        return f"sliding over the last {rule['max_turns']}"
    return f"stepped, {rule['min_turns']} to {rule['max_turns']}"
