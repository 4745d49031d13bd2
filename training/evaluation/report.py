"""An evaluation as it is kept with a version, refused ones too, and as people read it. Pure."""

import msgspec

from training.evaluation.gate import GateRule, Verdict
from training.evaluation.measured import Measured

NAME = "evaluation.json"


class Evaluation(msgspec.Struct, frozen=True):
    """What was measured, by which rule it was judged, and the verdict."""

    version: str
    previous: str
    """Empty: it is the first of its alias."""
    at: float
    """Unix seconds."""
    measured: Measured
    rule: GateRule
    verdict: Verdict

    @property
    def is_refused(self) -> bool:
        """It may never be offered. Who approves the others is written in their rollout."""
        return self.verdict.outcome == "refused"


def lines(evaluation: Evaluation) -> list[str]:
    """A few lines for people."""
    verdict, measured = evaluation.verdict, evaluation.measured
    good = sum(one.is_good for one in measured.goldens)
    return [
        f"{evaluation.version}: {verdict.outcome.replace('_', ' ')}",
        *(f"  against it: {reason}" for reason in verdict.reasons),
        *(f"  {note}" for note in verdict.notes),
        f"  template: {len(measured.template.differences)} of {measured.template.compared} examples differ",
        f"  golden prompts: {good} of {len(measured.goldens)} answered well",
    ]
