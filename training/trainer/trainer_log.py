"""What LLaMA-Factory says about a run while it runs: `trainer_log.jsonl` and the count of examples. Pure.

The file has one JSON object a line, written by rank 0 every `logging_steps`. It may be read in the middle of
a line, and is deleted when a run is resumed.
"""

import json
import math
import re
from collections.abc import Mapping

MOST_LINE_BYTES = 1 << 16
MOST_METRICS_TOLD = 400

_NAMES = {
    "current_steps": "step",
    "total_steps": "total_steps",
    "loss": "train_loss",
    "eval_loss": "valid_loss",
    "lr": "learning_rate",
    "epoch": "epoch",
    "total_tokens": "trained_tokens",
}
_EXAMPLES = re.compile(
    r"\*\*\*\*\* Running training \*\*\*\*\*.{0,200}?Num examples = ([\d,]{1,20})\b", re.DOTALL
)

Metrics = Mapping[str, float]


def split(rest: bytes, content: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """The whole lines, and the rest of which the end has not come yet. A line of absurd length is dropped."""
    *lines, rest = (rest + content).split(b"\n")
    return tuple(line for line in lines if len(line) <= MOST_LINE_BYTES), rest[-MOST_LINE_BYTES - 1 :]


def metrics(line: bytes) -> Metrics | None:
    """The numbers of a line; None for a line that has no step. What is not a finite number is left out.

    `diverged` is there, and 1, where a loss is none.
    """
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    found = {ours: said[theirs] for theirs, ours in _NAMES.items() if theirs in said}
    numbers = {name: float(value) for name, value in found.items() if _is_finite(value)}
    if any(_is_number(said.get(name)) and not _is_finite(said[name]) for name in ("loss", "eval_loss")):
        numbers["diverged"] = 1.0
    return numbers if "step" in numbers else None


def is_worth_telling(numbers: Metrics, last_step: float) -> bool:
    """A bounded number of a run's lines is told: every evaluation, and of the others every nth step."""
    if not {"train_loss", "valid_loss"} & set(numbers):
        return False
    if "valid_loss" in numbers:
        return numbers["step"] >= last_step
    total = numbers.get("total_steps", 0.0)
    stride = max(1, math.ceil(total / MOST_METRICS_TOLD))
    return last_step < numbers["step"] and (numbers["step"] >= last_step + stride or numbers["step"] >= total)


def examples(log: str) -> int | None:
    """How many examples the trainer says it trains on; None as long as it has not said."""
    found = _EXAMPLES.search(log)
    return int(found[1].replace(",", "")) if found else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
