"""The findings as a JSON object: every figure of the report under a name of its own."""

from typing import Any

import msgspec

from gateway.advise.question import Findings, Tried
from gateway.advise.reasons import caveats, reasons
from gateway.advise.rows import recall_at
from gateway.advise.words import Words
from history.advice import Closed


def figures(found: Findings, words: Words) -> dict[str, Any]:
    """What `--json` writes."""
    advice = found.advice
    whole = msgspec.to_builtins(found, str_keys=True)
    named = ("source", "seed", "is_partial", "wrong_lines", "measured_share", "counts", "traffic", "node")
    return {
        **{name: whole[name] for name in named},
        "circumstances": whole["circumstances"] | {"r0_from": found.r0_from},
        "p_cold": found.p_cold,
        "p_cold_from": found.p_cold_from,
        "advice": {
            "min_turns": advice.min_turns,
            "min_turns_from": found.min_turns_from,
            "max_turns": advice.max_turns,
            "max_turns_by": advice.by,
            "formula_excess": advice.excess,
            "summary_tokens": advice.summary_tokens,
            "cost": advice.chosen.cost,
            "reasons": [msgspec.to_builtins(one) for one in reasons(found, words)],
            "caveats": [msgspec.to_builtins(one) for one in caveats(found, words)],
        },
        "formula": [_closed(one) for one in found.closed],
        "windows": [_window(found, one) for one in found.tried],
        "recall": whole["recalled"],
        "recall_from": found.recall_from,
        "quality": whole["quality"],
        "model": found.model,
    }


def _closed(one: Closed) -> dict[str, Any]:
    facts = msgspec.to_builtins(one.facts)
    return {
        "min_turns": one.min_turns,
        "max_turns": one.max_turns,
        "best_step": one.best_step,
        "r": one.r,
        "retention_s": one.retention_s,
        "facts": facts,
        "predicted": msgspec.to_builtins(one.at(one.max_turns)),
    }


def _window(found: Findings, one: Tried) -> dict[str, Any]:
    outcome = one.outcome
    return {
        "rule": msgspec.to_builtins(outcome.rule),
        "turns": outcome.turns,
        "hit": outcome.hit,
        "uncached_per_turn": outcome.uncached,
        "mean_prompt": outcome.mean_prompt,
        "mean_window": outcome.mean_window,
        "cost_per_turn": outcome.cost,
        "predicted_cost": one.predicted_cost,
        "cuts": outcome.cuts,
        "cold": outcome.cold,
        "summaries": outcome.summaries,
        "ttft_p50_s": one.ttft_p50_s,
        "ttft_p95_s": one.ttft_p95_s,
        "recall": {
            str(distance): {
                "in_window": recall_at(found, outcome, distance, with_recall=False),
                "with_recall": recall_at(found, outcome, distance, with_recall=True),
            }
            for distance in found.distances
        },
    }
