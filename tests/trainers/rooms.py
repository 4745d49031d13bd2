"""A workshop whose doors are real but for datasets and recipes, which are pretended."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from training.job import Job, new_job
from training.memory_gpus import MemoryGpus
from training.memory_jobs import MemoryJobs
from training.ports import Gpus, JobStore, Plan, Prepared
from training.trainer import keeper
from training.trainer.processes import Processes
from training.trainer.shelf import FolderShelf
from training.trainer.workshop import Patience, Workshop

PRETENDED = Path(__file__).with_name("pretended.py")
EXAMPLES = 40
QUICK = Patience(look_every_s=0.05, renew_every_s=0.2, stall_s=60)


class Installed:
    def cli(self) -> Path | None:
        return Path(sys.executable)

    def missing(self) -> str:
        raise AssertionError("it is not missing")


class Forty:
    """Datasets: forty examples, whatever is asked."""

    async def prepare(self, job: Job, folder: Path) -> Prepared:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        (folder / "dataset_info.json").write_text("{}")
        return Prepared(folder, "train", "", EXAMPLES, 100)


class Pretended:
    """Recipes: the pretended trainer with these words."""

    def __init__(self, steps: int = 10, *, examples: int = EXAMPLES, **words: object) -> None:
        self._steps = steps
        self._examples = examples
        self._words = words

    async def plan(self, job: Job, prepared: Prepared, *, folder: Path, resume_from: Path | None) -> Plan:
        words = [
            w for name, value in self._words.items() for w in (f"--{name.replace('_', '-')}", str(value))
        ]
        resume = ["--resume", str(resume_from)] if resume_from else []
        command = (
            sys.executable,
            str(PRETENDED),
            str(folder / "output"),
            str(self._steps),
            str(self._examples),
        )
        return Plan((*command, *resume, *words), {}, {"recipe.yaml": b"{}\n"}, folder, False, ())


def workshop(
    folder: Path,
    recipes: Pretended,
    *,
    store: JobStore | None = None,
    gpus: Gpus | None = None,
    patience: Patience = QUICK,
    machine: str = "here",
) -> Workshop:
    return Workshop(
        store=store or MemoryJobs(),
        trainer=Installed(),
        datasets=Forty(),
        recipes=recipes,
        gpus=gpus or MemoryGpus(seconds=60, clock=time.monotonic),
        runs=Processes(folder / "locks", (), grace_s=2, patience_s=5),
        shelf=FolderShelf(folder / "models", versions=lambda: {"pretended": "1"}),
        folder=folder,
        gpus_here=(f"{machine}/cpu",),
        clock=time.time,
        sleep=asyncio.sleep,
        patience=patience,
    )


def a_job(job_id: str = "job-1") -> Job:
    return new_job(job_id=job_id, tenant="acme", model="org/smollm2", recipe="lora", now=1000.0)


def left_of(folder: Path) -> list[int]:
    """Processes that run for a job's folder: its tree, by the mark that all of it inherits."""
    mark = f"{keeper.MARK}={folder.resolve()}".encode()
    found = []
    for pid in keeper.pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if pid != os.getpid() and mark in environment.split(b"\0") and keeper.start_of(pid) is not None:
            found.append(pid)
    return found


def who(folder: Path) -> Mapping[str, int]:
    found: Mapping[str, int] = json.loads((folder / "pid.json").read_text())
    return found


async def steps_made(folder: Path, least: int) -> None:
    """Wait until the trainer has made so many."""
    async with asyncio.timeout(60):
        while True:
            path = folder / "steps.txt"
            if path.exists() and len(path.read_text().split()) >= least:
                return
            await asyncio.sleep(0.02)


def runs_of(folder: Path) -> list[int]:
    """From which step each run began."""
    return [int(line.split()[2]) for line in (folder / "runs.txt").read_text().splitlines()]
