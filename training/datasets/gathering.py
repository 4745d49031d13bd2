"""A dataset gathered from stored conversations, one at a time: the use case behind `friendo datasets
export`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import xxhash

from training.datasets.clean import Cleaner
from training.datasets.folder import DatasetFolder, RowFile
from training.datasets.lengths import Lengths
from training.datasets.likeness import Evaluation, Seen, sketch, tokens
from training.datasets.manifest import SOURCES, FileFacts, Manifest, Source
from training.datasets.rows import (
    EVALUATION,
    FILES,
    PREFERENCES,
    PREFERENCES_EVALUATION,
    TRAIN,
    example_row,
    pair_row,
)
from training.datasets.rules import DatasetRules
from training.datasets.split import is_held_out
from training.datasets.stored import Reading
from training.datasets.talk import Talk, consents
from training.errors import BadDataset
from training.tenant_name import tenant_name

_FIRST_BLOCK = 8 * 1024 * 1024
"""The reader takes a column's type from a file's first 10 MiB: of an empty history, that it stays empty."""


class Gathering:
    """Takes conversations in any order; what is kept of them in memory are hashes and counts."""

    def __init__(
        self, rules: DatasetRules, tenant: str, folder: DatasetFolder, evaluation: Evaluation | None = None
    ) -> None:
        self.left_out: Counter[str] = Counter()
        self.pairs_left_out: Counter[str] = Counter()
        self.certainty: Counter[str] = Counter()
        self.answers = 0
        self.conversations = 0
        self._rules = rules
        self._tenant = tenant
        self._folder = folder
        self._evaluation = evaluation or Evaluation(rules.shared_words)
        self._cleaner = Cleaner(rules)
        self._lengths = Lengths()
        self._rows: set[int] = set()
        self._with_history: set[str] = set()
        self._alike = Seen(rules.near)
        self._of_user: Counter[str] = Counter()
        for name in (TRAIN, EVALUATION):
            folder.file(FILES[name])

    @property
    def examples(self) -> int:
        """How many there are so far, those that are held out included."""
        return self.certainty.total()

    def take(self, talk: Talk) -> None:
        """One whole conversation of the tenant."""
        if not consents(talk.conversation.metadata):
            self.left_out["no_consent"] += 1
            return
        reading = Reading(talk, self._rules, self._cleaner)
        self.answers += len(talk.turns)
        if whole := self._of_dialogue(reading):
            self.left_out[whole] += len(talk.turns)
            return
        user = talk.conversation.user or talk.id
        is_held_out_ = is_held_out(user, self._rules.eval_share, salt=self._tenant)
        turns, first = self._take_examples(reading, user, EVALUATION if is_held_out_ else TRAIN)
        pairs, pairs_first = self._take_pairs(
            reading, PREFERENCES_EVALUATION if is_held_out_ else PREFERENCES
        )
        self.left_out.update(reading.left_out)
        if not (turns or pairs):
            return
        self.conversations += 1
        source = Source(
            user=talk.conversation.user,
            conversation=talk.id,
            file="eval" if is_held_out_ else "train",
            first=first,
            turns=tuple(turns),
            pairs_first=pairs_first,
            pairs=tuple(pairs),
        )
        self._folder.file(SOURCES).write(msgspec.json.encode(source) + b"\n")

    def finish(self, *, now: float, evaluated_with: Sequence[str] = ()) -> Path:
        """Close the dataset and give it its name; its folder."""
        self._folder.file(SOURCES)
        return self._folder.finish(self._manifest(self._folder.close_files(), now, tuple(evaluated_with)))

    def _manifest(
        self, files: Mapping[str, FileFacts], now: float, evaluated_with: tuple[str, ...]
    ) -> Manifest:
        return Manifest(
            id="",
            tenant=tenant_name(self._tenant),
            created_at=now,
            rules=self._rules,
            mask_history=True,
            files=files,
            conversations=self.conversations,
            users=len(self._of_user),
            answers=self.answers,
            left_out=dict(self.left_out),
            pairs_left_out=dict(self.pairs_left_out),
            mends=dict(self._cleaner.mends),
            personal=dict(self._cleaner.personal),
            certainty=dict(self.certainty),
            prompt_tokens_p99=self._lengths.quantile(),
            prompt_tokens_longest=self._lengths.longest(),
            evaluated_with=evaluated_with,
        )

    def _of_dialogue(self, reading: Reading) -> str:
        """Why the whole dialogue is left out; empty where it is not."""
        if len(self._evaluation) and any(map(self._evaluation.has, reading.texts())):
            return "contaminated"
        if self._rules.near and self._alike.is_known(sketch(tokens(reading.answers()))):
            return "near_duplicate"
        return ""

    def _take_examples(self, reading: Reading, user: str, name: str) -> tuple[list[int], int]:
        """The turns whose answers were written, and the first of their rows."""
        file, rules, turns = self._folder.file(FILES[name]), self._rules, list[int]()
        first = file.rows
        for served in reading.examples():
            if rules.max_per_user and self._of_user[user] >= rules.max_per_user:
                self.left_out["over_cap"] += 1
                continue
            if served.has_personal and rules.personal == "drop":
                self.left_out["personal_data"] += 1
                continue
            row = example_row(served.example, rules.form)
            if row is None:
                self.left_out["not_alpaca"] += 1
                continue
            if self._is_known(row):
                self.left_out["duplicate"] += 1
                continue
            self._put(name, file, row, has_history=len(served.example.lines) > 2)
            turns.append(served.turn)
            self._of_user[user] += 1
            self.certainty[served.certainty] += 1
            self._lengths.add(served.prompt_tokens)
        return turns, first

    def _take_pairs(self, reading: Reading, name: str) -> tuple[list[int], int]:
        pairs = list(reading.pairs())
        if not pairs:
            return [], 0
        file, turns = self._folder.file(FILES[name]), list[int]()
        first = file.rows
        for preferred in pairs:
            if preferred.has_personal and self._rules.personal == "drop":
                self.pairs_left_out["personal_data"] += 1
                continue
            row = pair_row(preferred.pair, self._rules.form)
            if row is None:
                self.pairs_left_out["not_alpaca"] += 1
                continue
            if self._is_known(row):
                self.pairs_left_out["duplicate"] += 1
                continue
            self._put(name, file, row, has_history=len(preferred.pair.lines) > 1)
            turns.append(preferred.turn)
        return turns, first

    def _put(self, name: str, file: RowFile, row: bytes, *, has_history: bool) -> None:
        """Write a row. Raises `BadDataset` for a file of Alpaca's form that could not be read to its end."""
        if has_history and name not in self._with_history:
            if self._rules.form == "alpaca" and file.bytes > _FIRST_BLOCK:
                late = (
                    "has no history in its first megabytes and some later, which Alpaca's reader cannot bear"
                )
                raise BadDataset((f"{FILES[name]} {late}: export it as sharegpt",))
            self._with_history.add(name)
        file.write(row)

    def _is_known(self, row: bytes) -> bool:
        """Whether the same row was written before; else it is remembered."""
        digest = xxhash.xxh3_64_intdigest(row)
        if digest in self._rows:
            return True
        self._rows.add(digest)
        return False
