"""Real LLaMA-Factory on the small model: LoRA, full SFT killed and resumed, two ranks cancelled."""

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.engines.places import Places
from tests.trainers.rooms import Pretended, a_job, left_of, who, workshop
from training.job import Change, Job, Status, apply
from training.llamafactory import LlamaFactory, default_folder
from training.ports import Plan, Prepared
from training.retrain import run_job
from training.trainer.processes import Processes, end_strays
from training.trainer.workshop import Patience, Workshop

EXAMPLES = 40
WITHIN_S = 300.0


class Sums:
    """Datasets: forty sums, in the form of ShareGPT."""

    async def prepare(self, job: Job, folder: Path) -> Prepared:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        rows = [
            [
                {"from": "human", "value": f"What is {n} plus one?"},
                {"from": "gpt", "value": f"It is {n + 1}."},
            ]
            for n in range(EXAMPLES)
        ]
        (folder / "train.json").write_text(json.dumps([{"conversations": row} for row in rows]))
        (folder / "dataset_info.json").write_text(
            json.dumps({"train": {"file_name": "train.json", "formatting": "sharegpt"}})
        )
        return Prepared(folder, "train", "", EXAMPLES, 40)


class Tiny:
    """Recipes: a few steps on the CPU."""

    def __init__(
        self, environment: Path, model: Path, *, kind: str, steps: int, save: int, ranks: int = 1
    ) -> None:
        self._environment = environment
        self._model = model
        self._kind = kind
        self._steps = steps
        self._save = save
        self._ranks = ranks

    async def plan(self, job: Job, prepared: Prepared, *, folder: Path, resume_from: Path | None) -> Plan:
        settings = {
            "model_name_or_path": str(self._model),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": self._kind,
            "dataset_dir": str(prepared.folder),
            "dataset": prepared.train,
            "template": "smollm2",
            "cutoff_len": 64,
            "output_dir": str(folder / "output"),
            "logging_steps": 1,
            "save_steps": self._save,
            "max_steps": self._steps,
            "per_device_train_batch_size": 1,
            "learning_rate": 1e-4,
            "use_cpu": True,
            "report_to": "none",
            "overwrite_output_dir": True,
            "enable_jit_checkpoint": self._ranks == 1,
            "resume_from_checkpoint": str(resume_from) if resume_from else None,
        }
        programs = self._environment / "bin"
        environment = {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{programs}:{os.environ['PATH']}",
            **({"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(self._ranks)} if self._ranks > 1 else {}),
        }
        recipe = json.dumps(settings).encode()  # JSON is YAML
        command = (str(programs / "llamafactory-cli"), "train", "recipe.yaml")
        return Plan(command, environment, {"recipe.yaml": recipe}, self._model, self._kind == "full", ())


@pytest.fixture
def llamafactory() -> Path:
    """Its environment; missing, the test fails with the command that installs it."""
    folder = default_folder(os.environ, Path.home())
    trainer = LlamaFactory(folder, installed_in=folder)
    assert trainer.cli() is not None, trainer.missing()
    return folder


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """job-1's folder; whatever still runs for it is ended behind the test."""
    yield tmp_path / "jobs" / "job-1"
    end_strays(tmp_path / "jobs" / "job-1")


def real_shop(root: Path, recipes: Tiny) -> Workshop:
    """As a worker has it, with the tests' dataset and recipe."""
    shop = workshop(root, Pretended())
    patience = Patience(look_every_s=0.2, renew_every_s=10, stall_s=200)
    return dataclasses.replace(shop, datasets=Sums(), recipes=recipes, patience=patience)


async def told_steps(shop: Workshop) -> list[float]:
    events = await shop.store.events("job-1", limit=1000)
    return [event.data["step"] for event in events if event.data and "train_loss" in event.data]


async def until_checkpoint(shop: Workshop, least: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            events = await shop.store.events("job-1", limit=1000)
            if any(event.data and event.data.get("checkpoint_step", 0) >= least for event in events):
                return
            await asyncio.sleep(0.1)


async def until_step(shop: Workshop, least: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while len(await told_steps(shop)) < least:
            assert not (await shop.store.get("job-1")).terminal, await shop.store.get("job-1")
            await asyncio.sleep(0.1)


async def test_lora_makes_an_adapter_with_its_lineage(
    tmp_path: Path, folder: Path, llamafactory: Path, engine_places: Places
) -> None:
    """Forty examples said and forty trained on."""
    model = engine_places.model_folder()
    shop = real_shop(tmp_path, Tiny(llamafactory, model, kind="lora", steps=4, save=2))
    await shop.store.create(a_job())

    await run_job("job-1", shop=shop)

    job = await shop.store.get("job-1")
    assert (job.status, job.error, job.examples) == (Status.SUCCEEDED, None, EXAMPLES)
    assert await told_steps(shop) == [1.0, 2.0, 3.0, 4.0]
    kept = tmp_path / "models" / job.fine_tuned_model
    lineage = json.loads((kept / "lineage.json").read_text())
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(lineage["sha256"])
    assert not list(kept.glob("checkpoint-*"))
    assert left_of(folder) == []


async def test_full_sft_killed_with_its_worker_resumes_at_the_exact_step(
    tmp_path: Path, folder: Path, llamafactory: Path, engine_places: Places
) -> None:
    """Worker, keeper and trainer at once, after a checkpoint; the step behind it is the next one made."""
    model = engine_places.model_folder()
    shop = real_shop(tmp_path, Tiny(llamafactory, model, kind="full", steps=5, save=2))
    await shop.store.create(a_job())
    worker = asyncio.create_task(run_job("job-1", shop=shop))
    await until_checkpoint(shop, 2)
    worker.cancel()
    for pid in (who(folder)["pid"], *left_of(folder)):
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(worker, return_exceptions=True)

    await run_job("job-1", shop=shop)

    job = await shop.store.get("job-1")
    story = [event.message for event in await shop.store.events("job-1", limit=1000)]
    assert (job.status, job.error) == (Status.SUCCEEDED, None)
    resumed = next(message for message in story if message.startswith("resumed from step"))
    first = int(resumed.rsplit(" ", 1)[1])
    assert first in (2, 4)
    said = (tmp_path / "models" / job.fine_tuned_model / "trainer_log.jsonl").read_text().splitlines()
    steps = [line["current_steps"] for line in map(json.loads, said) if "loss" in line]
    assert steps == list(range(first + 1, 6))


async def test_paused_it_makes_a_checkpoint_of_the_moment(
    tmp_path: Path, folder: Path, llamafactory: Path, engine_places: Places
) -> None:
    """The just-in-time checkpoint, at a step at which none was due; it goes on from there."""
    model = engine_places.model_folder()
    shop = real_shop(tmp_path, Tiny(llamafactory, model, kind="lora", steps=20, save=50))
    shop = dataclasses.replace(shop, runs=_patient(tmp_path))
    await shop.store.create(a_job())
    worker = asyncio.create_task(run_job("job-1", shop=shop))
    await until_step(shop, 2)
    await shop.store.advance(apply(await shop.store.get("job-1"), Change.PAUSE, now=2000.0))
    await worker
    stopped = [event for event in await shop.store.events("job-1", limit=1000) if "stopped" in event.message]
    assert left_of(folder) == []
    assert stopped[0].data is not None
    assert 2 <= stopped[0].data["checkpoint_step"] < 20

    await shop.store.advance(apply(await shop.store.get("job-1"), Change.RESUME, now=2000.0))
    await run_job("job-1", shop=shop)

    story = [event.message for event in await shop.store.events("job-1", limit=1000)]
    assert (await shop.store.get("job-1")).status is Status.SUCCEEDED
    assert f"resumed from step {stopped[0].data['checkpoint_step']:.0f}" in story


async def test_two_ranks_cancelled_leave_no_process(
    tmp_path: Path, folder: Path, llamafactory: Path, engine_places: Places
) -> None:
    """The ranks of torchrun are in sessions of their own."""
    model = engine_places.model_folder()
    shop = real_shop(tmp_path, Tiny(llamafactory, model, kind="lora", steps=200, save=200, ranks=2))
    await shop.store.create(a_job())
    worker = asyncio.create_task(run_job("job-1", shop=shop))
    await until_step(shop, 1)
    assert len(left_of(folder)) >= 4  # the launcher, torchrun, two ranks

    await shop.store.advance(apply(await shop.store.get("job-1"), Change.CANCEL, now=2000.0))
    await worker

    assert (await shop.store.get("job-1")).status is Status.CANCELLED
    assert left_of(folder) == []
    assert not (tmp_path / "models").exists()


def _patient(root: Path) -> Processes:
    return Processes(root / "locks", (), grace_s=5, patience_s=120)
