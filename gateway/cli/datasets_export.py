"""`friendo datasets export`: from the options to a dataset, with a bar on the way and a table at the end."""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway.cli.conversation_store import opened
from gateway.cli.settings_file import read_settings
from gateway.errors import BadOption
from training.datasets.checking import Checked
from training.datasets.folder import DatasetFolder, manifest_of
from training.datasets.gathering import Gathering
from training.datasets.likeness import Evaluation
from training.datasets.manifest import Manifest
from training.datasets.rules import REASONS, DatasetRules
from training.datasets.sources import exported_talks, stored_ids, stored_talks
from training.errors import BadDataset

_EVERY = 100


class Order(msgspec.Struct, frozen=True):
    """What the command was asked for."""

    tenant: str
    redis: str | None
    file: Path | None
    out: Path
    without: tuple[Path, ...]
    rules: DatasetRules


def rules_of(**options: object) -> DatasetRules:
    """The rules, with the window of the settings. Raises `BadOption` for a value that is none."""
    window = read_settings(None, os.environ).history.rules.window.rule()
    try:
        return msgspec.convert({**options, "window": msgspec.to_builtins(window)}, DatasetRules)
    except msgspec.ValidationError as error:
        raise BadOption(f"datasets export: {error}") from error


def exported(order: Order) -> tuple[Path, int]:
    """Make the dataset; its folder, and how many examples it has. Raises what `reported` tells,
    `BadDataset`.
    """
    if order.file is not None and order.redis is not None:
        raise BadOption("name either --file or --redis, not both")
    evaluation, hashes = _evaluation(order)
    with DatasetFolder(order.out, order.rules.form) as folder:
        gathering = Gathering(order.rules, order.tenant, folder, evaluation)
        with _bar() as bar:
            uvloop.run(_gather(order, gathering, bar))
        made = gathering.finish(now=time.time(), evaluated_with=hashes)
    show(manifest_of(made), gathering.examples)
    return made, gathering.examples


async def _gather(order: Order, gathering: Gathering, bar: "_Bar") -> None:
    if order.file is not None:
        bar.begins(order.file.stat().st_size)
        for talk in exported_talks(order.file, bar.moved):
            gathering.take(talk)
            bar.says(f"{gathering.examples} examples")
        return
    async with opened(order.redis) as place:
        ids = await stored_ids(place.store, order.tenant)
        bar.begins(len(ids))
        async for found in stored_talks(place.store, order.tenant, ids):
            if found is not None:
                gathering.take(found)
            bar.moved(1)
            bar.says(f"{gathering.examples} examples")


def _evaluation(order: Order) -> tuple[Evaluation, tuple[str, ...]]:
    """The texts of the files that the dataset must not share any with, and their hashes."""
    evaluation, hashes = Evaluation(order.rules.shared_words), []
    for path in order.without:
        checked = Checked(path, order.rules)
        for _, found in checked.taken_of():
            lines = found.example.lines if found.example is not None else ()
            if found.pair is not None:
                lines = (*found.pair.lines, found.pair.chosen, found.pair.rejected)
            for one in lines:
                evaluation.add(one.text)
        if not checked.is_good:
            raise BadDataset(checked.all_problems())
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return evaluation, tuple(hashes)


def show(manifest: Manifest, examples: int) -> None:
    """What is in the dataset, what was left out, and why; on standard error."""
    console = Console(stderr=True, highlight=False)
    rows = {name: facts.rows for name, facts in manifest.files.items() if facts.rows}
    console.print(
        f"[b]{examples} examples[/b] of {manifest.conversations} conversations and {manifest.users} users;"
        f" rows: {', '.join(f'{name} {count}' for name, count in rows.items())}"
    )
    prompts = ", ".join(f"{count} {name}" for name, count in sorted(manifest.certainty.items())) or "none"
    most, longest = manifest.prompt_tokens_p99, manifest.prompt_tokens_longest
    console.print(f"prompts: {prompts}; 99 of 100 have at most {most} tokens, the longest {longest}")
    table = Table(box=None, pad_edge=False)
    for name in ("", "count", "why"):
        table.add_column(name, justify="right" if name == "count" else "left")
    for name, count, why in _rows(manifest):
        table.add_row(name, str(count), why)
    console.print(table)


def _rows(manifest: Manifest) -> Iterator[tuple[str, int, str]]:
    for reason, count in sorted(manifest.left_out.items(), key=lambda one: -one[1]):
        yield f"left out: {reason}", count, REASONS.get(reason, "")
    for reason, count in sorted(manifest.pairs_left_out.items()):
        yield f"pairs left out: {reason}", count, REASONS.get(reason, "")
    for kind, count in sorted(manifest.mends.items()):
        yield f"mended: {kind}", count, ""
    for kind, count in sorted(manifest.personal.items()):
        yield f"found: {kind}", count, "replaced by its kind" if manifest.rules.personal == "redact" else ""


class _Bar:
    """How far the dialogues are read; drawn now and then, since each of them is a matter of microseconds."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)
        self._done = self._calls = 0

    def begins(self, total: int) -> None:
        """So much there is."""
        self._progress.update(self._task, total=total)

    def moved(self, count: int) -> None:
        """So much more is read."""
        self._done += count

    def says(self, text: str) -> None:
        """What has come of it."""
        self._calls += 1
        if self._calls % _EVERY == 0:
            self._progress.update(self._task, completed=self._done, description=text)


@contextmanager
def _bar() -> Iterator[_Bar]:
    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.description}"))
    is_silent = not sys.stderr.isatty()
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=is_silent, transient=True
    ) as progress:
        yield _Bar(progress)
