"""Puts a real worker's workshop together: the composition root's second half."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import redis.asyncio

from training.datasets.job_datasets import JobDatasets
from training.disk_files import DiskFiles
from training.evaluation.evaluator import FolderEvaluator
from training.evaluation.gate import GateRule
from training.llamafactory import LlamaFactory
from training.planning import Planner
from training.recipes.place import Machine
from training.recipes.shelf import SHIPPED, Shelf
from training.redis_gpus import RedisGpus
from training.redis_jobs import RedisJobs
from training.trainer.options import Settings
from training.trainer.processes import Processes
from training.trainer.shelf import FolderShelf
from training.trainer.versions import versions
from training.trainer.workshop import Workshop

GPU_LEASE_S = 60.0

Equip = Callable[[Settings, "redis.asyncio.Redis", LlamaFactory], Workshop]


def equipped(settings: Settings, records: "redis.asyncio.Redis", trainer: LlamaFactory) -> Workshop:
    """The workshop of a real worker."""
    folder = settings.folder or Path("unset")  # never used: without a folder every job fails before
    store, host = RedisJobs(records), socket.gethostname()
    cli = trainer.cli()
    machine = Machine(
        gpus=settings.gpus, cores=os.cpu_count() or 1, programs=cli.parent if cli is not None else None
    )
    files = DiskFiles(folder / "files", max_bytes=0, max_files=0)  # it only reads them
    return Workshop(
        store=store,
        trainer=trainer,
        datasets=JobDatasets(files, folder / "datasets"),
        recipes=Planner(Shelf((folder / "recipes", *SHIPPED)), settings.models, machine),
        gpus=RedisGpus(records, seconds=GPU_LEASE_S),
        runs=Processes(folder / "locks", settings.gpus),
        shelf=FolderShelf(folder / "models", versions=partial(versions, settings.llamafactory)),
        evaluator=FolderEvaluator(
            store, trainer, models=folder / "models", golden=folder / "golden", rule=GateRule(), now=time.time
        ),
        folder=settings.folder,
        gpus_here=tuple(f"{host}/gpu{name}" for name in settings.gpus) or (f"{host}/cpu",),
        clock=time.time,
        sleep=asyncio.sleep,
    )
