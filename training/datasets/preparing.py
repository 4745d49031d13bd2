"""A job's dataset on its disk: from an uploaded file, or from a dataset that was exported before."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from training.datasets.checking import Checked
from training.datasets.folder import RowFile, check_files, manifest_of
from training.datasets.forms import Taken
from training.datasets.lengths import Lengths, estimated
from training.datasets.likeness import Evaluation
from training.datasets.lines import Example, Line, Pair
from training.datasets.rows import (
    EVALUATION,
    FILES,
    INFO,
    PREFERENCES,
    PREFERENCES_EVALUATION,
    TRAIN,
    example_row,
    info,
    pair_row,
)
from training.datasets.rules import DatasetRules
from training.errors import BadDataset
from training.job import Method
from training.ports import Prepared


class Upload(msgspec.Struct, frozen=True):
    """An uploaded file, and what people call it."""

    path: Path
    name: str


class _Written(msgspec.Struct, frozen=True):
    rows: int
    longest: int
    notes: tuple[str, ...]


def prepare_upload(
    train: Upload, evaluation: Upload | None, folder: Path, *, method: Method, rules: DatasetRules
) -> Prepared:
    """Write what an uploaded file says into `folder`. Raises `BadDataset`; nothing is dropped in silence.

    Where a record says that some of its answers do not count (`weight: 0`), each one that does becomes an
    example of its own, and the trainer is to mask the history.
    """
    looked = [_looked(one, rules, method) for one in (train, evaluation) if one is not None]
    is_apart = not all(one.counts_all for one in looked)
    names = _names(method)
    held = Evaluation(rules.shared_words)
    tested: _Written | None = None
    folder.mkdir(parents=True, exist_ok=True)
    if evaluation is not None:
        tested = _write(evaluation, folder / FILES[names[1]], rules, is_apart=is_apart, into=held)
    written = _write(train, folder / FILES[names[0]], rules, is_apart=is_apart, without=held)
    if not written.rows:
        raise BadDataset(
            (f"{train.name}: nothing is left to train on: all of it is in the validation file, too",)
        )
    return _prepared(folder, names, written, tested, is_apart=is_apart)


def prepare_exported(
    dataset: Path, evaluation: Upload | None, folder: Path, *, method: Method, rules: DatasetRules
) -> Prepared:
    """Put an exported dataset into `folder`. Raises `BadDataset` if it is not what was exported.

    `evaluation`: a file that is to be held against it instead of the users that it holds out itself.
    """
    manifest = manifest_of(dataset)
    check_files(dataset, manifest)
    form = manifest.rules.form
    if evaluation is not None and form != "sharegpt":
        raise BadDataset(
            (f"{dataset.name} is in Alpaca's form: export it as sharegpt to use a validation file",)
        )
    names = _names(method)
    facts = [manifest.files.get(FILES[name]) for name in names]
    rows = [one.rows if one is not None else 0 for one in facts]
    if not rows[0]:
        what = "preference pairs" if method == "dpo" else "examples"
        raise BadDataset((f"{dataset.name} has no {what}: export it with other rules",))
    folder.mkdir(parents=True, exist_ok=True)
    _put(dataset / FILES[names[0]], folder / FILES[names[0]])
    written = _Written(rows[0], manifest.prompt_tokens_p99, ())
    tested: _Written | None = None
    if evaluation is not None:
        _looked(evaluation, rules, method)
        tested = _write(evaluation, folder / FILES[names[1]], rules, is_apart=True)
    elif rows[1]:
        _put(dataset / FILES[names[1]], folder / FILES[names[1]])
        tested = _Written(rows[1], 0, ())
    prepared = _prepared(folder, names, written, tested, is_apart=manifest.mask_history)
    if form != "sharegpt":
        named = [name for name, one in zip(names, (written, tested), strict=True) if one is not None]
        (folder / INFO).write_bytes(info(named, form))
    return prepared


def _names(method: Method) -> tuple[str, str]:
    return (PREFERENCES, PREFERENCES_EVALUATION) if method == "dpo" else (TRAIN, EVALUATION)


def _looked(upload: Upload, rules: DatasetRules, method: Method) -> Checked:
    """A first reading, before anything is written."""
    checked = Checked(upload.path, rules, name=upload.name)
    has_pairs = False
    for _, found in checked.taken_of():
        has_pairs = found.pair is not None
    if not checked.is_good:
        raise BadDataset(checked.all_problems())
    if has_pairs and method != "dpo":
        raise BadDataset((f"{upload.name} has preference pairs, which only the method dpo trains on",))
    if not has_pairs and method == "dpo":
        raise BadDataset((f"{upload.name} has no preference pairs; the method dpo trains on nothing else",))
    return checked


def _write(
    upload: Upload,
    path: Path,
    rules: DatasetRules,
    *,
    is_apart: bool,
    into: Evaluation | None = None,
    without: Evaluation | None = None,
) -> _Written:
    """The second reading: every record as rows. What shares text with the evaluation is left out and said."""
    path.unlink(missing_ok=True)  # an earlier attempt may have linked something else there
    file, lengths, shared = RowFile(path), Lengths(), list[int]()
    checked = Checked(upload.path, rules, name=upload.name)
    try:
        for number, found in checked.taken_of():
            texts = [one.text for one in _lines(found)]
            if without is not None and any(map(without.has, texts)):
                shared.append(number)
                continue
            if into is not None:
                for text in texts:
                    into.add(text)
            for row, prompt_bytes in _rows(found, is_apart=is_apart):
                file.write(row)
                lengths.add(estimated(prompt_bytes))
    finally:
        facts = file.close()
    notes = checked.all_notes()
    if shared:
        some = ", ".join(map(str, shared[:20]))
        notes += (f"{upload.name}: {len(shared)} records share text with the validation file: {some}",)
    return _Written(facts.rows, lengths.quantile(), notes)


def _lines(found: Taken) -> tuple[Line, ...]:
    if found.pair is not None:
        return (*found.pair.lines, found.pair.chosen, found.pair.rejected)
    return found.example.lines if found.example is not None else ()


def _rows(found: Taken, *, is_apart: bool) -> Iterator[tuple[bytes, int]]:
    """The rows of a record, with the bytes of their prompts."""
    if found.pair is not None:
        yield _pair_row(found.pair)
    elif found.example is not None:
        whole = found.example
        ends = [at + 1 for at in found.counts] if is_apart else [len(whole.lines)]
        for end in ends:
            yield _example_row(msgspec.structs.replace(whole, lines=whole.lines[:end]))


def _example_row(example: Example) -> tuple[bytes, int]:
    row = example_row(example, "sharegpt")
    assert row is not None
    return row, len(example.system.encode()) + sum(len(one.json) for one in example.lines[:-1])


def _pair_row(pair: Pair) -> tuple[bytes, int]:
    row = pair_row(pair, "sharegpt")
    assert row is not None
    return row, len(pair.system.encode()) + sum(len(one.json) for one in pair.lines)


def _put(source: Path, target: Path) -> None:
    """The same file in another place: a link where the disk has links. Nobody writes to either."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _prepared(
    folder: Path, names: tuple[str, str], written: _Written, tested: _Written | None, *, is_apart: bool
) -> Prepared:
    is_tested = tested is not None and tested.rows > 0
    (folder / INFO).write_bytes(info(names if is_tested else names[:1], "sharegpt"))
    notes = written.notes + (tested.notes if tested is not None else ())
    return Prepared(
        folder=folder,
        train=names[0],
        evaluation=names[1] if is_tested else "",
        examples=written.rows,
        longest_prompt=written.longest,
        mask_history=is_apart,
        notes=notes,
    )
