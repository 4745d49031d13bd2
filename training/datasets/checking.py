"""An uploaded file read record by record: what can be trained on, what was mended, what is refused and why.

The file's first good record says which form all of them have.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from training.datasets.chat_lines import BadRecord
from training.datasets.clean import Cleaner
from training.datasets.forms import Shape, Taken, shape_of, taken
from training.datasets.records import Record, records
from training.datasets.rules import DatasetRules

NAMED = 50
"""Problems and notes that are named; the rest is counted."""
_GIVES_UP = 1000

_COLUMNS = (
    "its columns are those of no form that is known: OpenAI (messages; or input, preferred_output and"
    " non_preferred_output), ShareGPT (conversations or dialogue), Alpaca (instruction or prompt, output or"
    " response)"
)


class Checked:
    """What became of a file's records so far; complete once `taken_of` is exhausted."""

    def __init__(self, path: Path, rules: DatasetRules, *, name: str = "") -> None:
        """`name`: what people call the file."""
        self.path = path
        self.name = name or path.name
        self.shape: Shape | None = None
        self.records = 0
        self.problems: list[str] = []
        self.problem_count = 0
        self.notes: list[str] = []
        self.mends: Counter[str] = Counter()
        self.counts_all = True
        """Whether every answer of every record counts."""
        self._cleaner = Cleaner(rules)

    @property
    def is_good(self) -> bool:
        """Whether nothing was refused."""
        return not self.problem_count

    @property
    def personal(self) -> Counter[str]:
        """Texts in which personal data was found and replaced, by kind."""
        return self._cleaner.personal

    def taken_of(self) -> Iterator[tuple[int, Taken]]:
        """Each record that is good, by its number; the others are `problems`."""
        for record in records(self.path):
            self.records += 1
            found = self._taken(record)
            if found is not None:
                yield record.number, found
            if self.problem_count >= _GIVES_UP:
                self._refuse(
                    record.number, f"more than {_GIVES_UP} records are wrong; the rest was not looked at"
                )
                return

    def all_problems(self) -> tuple[str, ...]:
        """Those that are named, and how many more there are."""
        more = self.problem_count - len(self.problems)
        return (*self.problems, *([f"{self.name}: {more} more problems"] if more else []))

    def all_notes(self) -> tuple[str, ...]:
        """What was mended: the first ones by record, then all by kind."""
        kinds = self.mends + Counter({f"{kind}_replaced": count for kind, count in self.personal.items()})
        totals = [
            f"{self.name}: {kind.replace('_', ' ')} ({count})"
            for kind, count in sorted(kinds.items())
            if count
        ]
        return (*self.notes, *totals)

    def _taken(self, record: Record) -> Taken | None:
        if record.fields is None:
            self._refuse(record.number, record.problem)
            return None
        shape = shape_of(record.fields)
        if shape is None or (self.shape is not None and shape != self.shape):
            mixed = f"it is {shape}, the records before are {self.shape}" if shape else _COLUMNS
            self._refuse(record.number, mixed)
            return None
        before = +self._cleaner.mends
        mends = Counter(record.mends)
        try:
            found = taken(record.fields, shape, self._cleaner, mends)
        except BadRecord as error:
            self._refuse(record.number, str(error))
            return None
        except (RecursionError, OverflowError) as error:
            self._refuse(
                record.number, f"it is nested too deeply, or has a number that is too large: {error}"
            )
            return None
        self.shape = shape
        self.counts_all = self.counts_all and found.counts_all
        self._note(record.number, mends + (self._cleaner.mends - before))
        return found

    def _note(self, number: int, mends: Counter[str]) -> None:
        self.mends += mends
        for kind in sorted(mends):
            if len(self.notes) < NAMED:
                self.notes.append(f"{self.name}, record {number}: {kind.replace('_', ' ')}")

    def _refuse(self, number: int, reason: str) -> None:
        self.problem_count += 1
        if len(self.problems) < NAMED:
            self.problems.append(f"{self.name}, record {number}: {reason}")


class Report(msgspec.Struct, frozen=True):
    """What a look at a file has found."""

    shape: Shape | None
    records: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_file(path: Path, rules: DatasetRules) -> Report:
    """Look at every record of a file, and write nothing. Raises `OSError` where it cannot be read."""
    checked = Checked(path, rules)
    for _ in checked.taken_of():
        pass
    return Report(checked.shape, checked.records, checked.all_problems(), checked.all_notes())
