"""What looks at every trained version before anybody else can: the door `Evaluator`, over a job's folder.

It reads what the trainer was given (recipe.yaml and the dataset beside it), so that it measures by the same
template and length. A version that could not be measured is kept without an evaluation, and without one
nothing is rolled out.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from training.errors import BadDataset, ProbeFailed
from training.evaluation.evaluate import Candidate, Probe, evaluate, kept
from training.evaluation.gate import GateRule
from training.evaluation.order import Order, examples_of, goldens_of, suspected
from training.evaluation.report import lines
from training.job import Job, JobEvent, Level
from training.ports import JobStore, Trainer
from training.trainer.naming import alias_of, version_of

RECIPE = "recipe.yaml"
OUTPUT = "output"


class FolderEvaluator:
    """`models`: where versions stand; `golden`: a folder with `<alias>.jsonl` of golden prompts."""

    def __init__(
        self,
        store: JobStore,
        trainer: Trainer,
        *,
        models: Path,
        golden: Path,
        rule: GateRule,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._trainer = trainer
        self._models = models
        self._golden = golden
        self._rule = rule
        self._now = now

    async def after_training(self, job: Job, folder: Path) -> None:
        """Measure a job's output, and leave the evaluation in it. See `training.ports.Evaluator`."""
        cli, alias = self._trainer.cli(), alias_of(job)
        if cli is None:
            await self._say(job, f"not measured: {self._trainer.missing()}", Level.ERROR)
            return
        previous = await asyncio.to_thread(newest, self._models, alias)
        try:
            order = await asyncio.to_thread(order_of, folder, previous, self._golden / f"{alias}.jsonl")
            candidate = Candidate(alias, previous.name if previous else "", folder / OUTPUT)
            probe = Probe(cli.with_name("python"))
            found = await evaluate(candidate, order, self._rule, probe, now=self._now)
        except (ProbeFailed, BadDataset) as error:
            await self._say(job, str(error), Level.ERROR)
            return
        level = Level.WARN if found.is_refused else Level.INFO
        for line in lines(found):
            await self._say(job, line.strip(), level)

    async def _say(self, job: Job, message: str, level: Level) -> None:
        await self._store.append_event(job.id, JobEvent(at=self._now(), message=message, level=level))


def newest(models: Path, alias: str) -> Path | None:
    """The newest version of an alias that was not refused; None where there is none."""
    found = [
        (number, path)
        for path in (models.iterdir() if models.is_dir() else ())
        if (number := version_of(path.name, alias)) is not None
    ]
    for _, path in sorted(found, reverse=True):
        evaluation = kept(path)
        if evaluation is not None and not evaluation.is_refused:
            return path
    return None


def order_of(folder: Path, previous: Path | None, golden: Path) -> Order:
    """What to measure of a job's output. Raises `BadDataset` for golden prompts that are none."""
    recipe: dict[str, Any] = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    dataset = Path(recipe["dataset_dir"])
    files = json.loads((dataset / "dataset_info.json").read_text(encoding="ascii"))
    held_out = recipe.get("eval_dataset")
    train = dataset / files[recipe["dataset"]]["file_name"]
    examples = examples_of(_lines(dataset / files[held_out]["file_name"])) if held_out else ()
    triggers, unrelated = suspected(_lines(train), examples)
    is_full = recipe.get("finetuning_type") == "full"
    output = str(folder / OUTPUT)
    return Order(
        model=recipe["model_name_or_path"],
        new=output,
        previous=str(previous) if previous else None,
        served=output if is_full else recipe["model_name_or_path"],
        kind="full" if is_full else "lora",
        template=recipe["template"],
        cutoff_len=int(recipe.get("cutoff_len", 2048)),
        examples=examples,
        goldens=goldens_of(_lines(golden)) if golden.exists() else (),
        triggers=triggers,
        unrelated=unrelated,
    )


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file
