"""What a dataset is made of: hashes of its files, what was left out and why, and whose dialogues are in it.
Pure.

The manifest is one JSON file. Whose examples stand where is in `sources.jsonl` beside it, a line for each
conversation, under the manifest's hash: a hundred thousand conversations are no document to hold in memory.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from training.datasets.rules import DatasetRules

SCHEMA = 1
MANIFEST, SOURCES = "manifest.json", "sources.jsonl"


class FileFacts(msgspec.Struct, frozen=True):
    """One file: what it hashes to, its size, and how many rows it has."""

    sha256: str
    bytes: int
    rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `manifest.json` says."""

    schema: int = SCHEMA
    id: str
    tenant: str
    """Hashed, as in paths."""
    created_at: float
    """Unix seconds."""
    rules: DatasetRules
    mask_history: bool
    """What a recipe has to set, so that each answer counts exactly once."""
    files: Mapping[str, FileFacts]
    conversations: int
    """That have examples in it."""
    users: int
    answers: int
    """That were looked at: the examples, and those that were left out."""
    left_out: Mapping[str, int]
    """Answers, by reason; of conversations without consent, these themselves."""
    pairs_left_out: Mapping[str, int]
    mends: Mapping[str, int]
    """Texts that were mended, by what was mended."""
    personal: Mapping[str, int]
    """Texts in which personal data was found, by kind."""
    certainty: Mapping[str, int]
    """Examples by how sure it is that their prompts are those that were served."""
    prompt_tokens_p99: int
    prompt_tokens_longest: int
    evaluated_with: tuple[str, ...] = ()
    """The hashes of the evaluation files that it shares no text with."""


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conversation's rows: `file` (`train` or `eval`), from row `first` on, of the turns `turns`."""

    user: str
    conversation: str
    file: str
    first: int
    turns: tuple[int, ...] = ()
    pairs_first: int = 0
    pairs: tuple[int, ...] = ()
    """The turns of its preference pairs, in the file of pairs from row `pairs_first` on."""


def dataset_id(manifest: Manifest) -> str:
    """Made of what is in it: the same dialogues under the same rules are the same dataset."""
    told = msgspec.structs.replace(manifest, id="", created_at=0.0)
    return f"ds-{hashlib.sha256(msgspec.json.encode(told, order='deterministic')).hexdigest()[:16]}"
