"""Puts a real worker's workshop together: the composition root's second half.

Datasets and recipes are put in by whoever calls `serve`; a build without them says so instead of training.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import redis.asyncio

from training.errors import InvalidJob
from training.job import Job
from training.llamafactory import LlamaFactory
from training.ports import Datasets, Evaluator, Plan, Prepared, Recipes
from training.redis_gpus import RedisGpus
from training.redis_jobs import RedisJobs
from training.trainer.options import Settings
from training.trainer.processes import Processes
from training.trainer.shelf import FolderShelf
from training.trainer.versions import versions
from training.trainer.workshop import Workshop

GPU_LEASE_S = 60.0

Equip = Callable[[Settings, "redis.asyncio.Redis", LlamaFactory], Workshop]


class NothingYet:
    """Stands where datasets and recipes are to be."""

    async def prepare(self, job: Job, folder: Path) -> Prepared:  # noqa: ARG002  # as the door has it
        """See Datasets."""
        raise InvalidJob("training_file", f"this version reads no datasets yet: {job.training_file!r}")

    async def plan(  # as the door has it
        self,
        job: Job,
        prepared: Prepared,  # noqa: ARG002
        *,
        folder: Path,  # noqa: ARG002
        resume_from: Path | None,  # noqa: ARG002
    ) -> Plan:
        """See Recipes."""
        raise InvalidJob("recipe", f"this version has no recipes yet: {job.recipe!r}")


def equipped(
    settings: Settings,
    records: "redis.asyncio.Redis",
    trainer: LlamaFactory,
    *,
    datasets: Datasets | None = None,
    recipes: Recipes | None = None,
    evaluator: Evaluator | None = None,
) -> Workshop:
    """The workshop of a real worker."""
    folder = settings.folder or Path("unset")  # never used: without a folder every job fails before
    machine = socket.gethostname()
    return Workshop(
        store=RedisJobs(records),
        trainer=trainer,
        datasets=datasets or NothingYet(),
        recipes=recipes or NothingYet(),
        gpus=RedisGpus(records, seconds=GPU_LEASE_S),
        runs=Processes(folder / "locks", settings.gpus),
        shelf=FolderShelf(folder / "models", versions=partial(versions, settings.llamafactory)),
        folder=settings.folder,
        gpus_here=tuple(f"{machine}/gpu{name}" for name in settings.gpus) or (f"{machine}/cpu",),
        clock=time.time,
        sleep=asyncio.sleep,
        evaluator=evaluator,
    )
