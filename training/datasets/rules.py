"""What goes into a dataset: what can be asked for, and the names of all reasons for leaving something out.
Pure.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from history.window import WindowRule
from training.datasets.personal import KINDS, Kind

Form = Literal["sharegpt", "alpaca"]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "no_consent": 'the conversation\'s metadata does not say training_consent: "true"',
        "no_model_answer": "nobody asked a model: a greeting, an imported line without an answer",
        "incomplete": "the answer was broken off, or a tool's result never came",
        "tool_call": "the turn ends in a tool call; tools are not stored with dialogues",
        "empty_answer": "the model said nothing",
        "misread": "the text was decoded in a wrong encoding before it was stored",
        "not_text": "the message has images or audio, which the dataset cannot hold",
        "rated_down": "somebody did not like the answer",
        "not_liked": "nobody said that they liked the answer, and only liked ones were wanted",
        "memory_lost": "the memory that the prompt showed is no longer stored",
        "personal_data": "secrets or personal data in the prompt or the answer",
        "duplicate": "the same prompt with the same answer is there already",
        "near_duplicate": "the dialogue is nearly the same as another one",
        "contaminated": "the dialogue shares text with the evaluation",
        "over_cap": "the user has as many examples as one user may have",
        "not_alpaca": "tool calls and their results have no place in Alpaca's form",
    }
)
"""Why an answer is left out, in words. Each answer that is stored is an example or has one of these."""


class DatasetRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes into a dataset, and how."""

    form: Form = "sharegpt"
    only_liked: bool = False
    """Train on answers with a thumbs up and on nothing else."""
    pairs: Literal["none", "rated", "all"] = "all"
    """Preference pairs: none, where somebody has rated, or also what a regeneration replaced."""
    max_per_user: int = 1000
    """Examples; 0: no cap."""
    eval_share: float = 0.05
    """The share of users that is held out for the evaluation."""
    personal: Literal["redact", "drop", "keep"] = "redact"
    """Replace secrets and personal data by their kind, leave such examples out, or do not look."""
    personal_kinds: tuple[Kind, ...] = KINDS
    near: float = 0.85
    """Dialogues whose answers are so alike (Jaccard, 0..1) count once; 0: do not look."""
    lost_memory: Literal["keep", "leave_out"] = "keep"
    """Prompts that showed a memory which is no longer stored: without it, or not at all."""
    shared_words: int = 13
    """A dialogue that shares so many words in a row with the evaluation is left out."""
    window: WindowRule = WindowRule()
    """The rule under which prompts were served; cuts are replayed by it."""

    def __post_init__(self) -> None:
        if not (0 <= self.eval_share < 1 and 0 <= self.near <= 1):
            raise ValueError("eval_share must be at least 0 and below 1, near from 0 to 1")
        if self.max_per_user < 0 or self.shared_words < 2:
            raise ValueError("max_per_user must not be negative, shared_words at least 2")
