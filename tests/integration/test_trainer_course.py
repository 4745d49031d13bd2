"""Real process trees: begun, adopted, resumed, ended; their worker is a task that dies by being cancelled."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.trainers.rooms import (
    EXAMPLES,
    Pretended,
    a_job,
    left_of,
    runs_of,
    steps_made,
    who,
    workshop,
)
from training.job import Change, Job, Status, apply
from training.memory_jobs import MemoryJobs
from training.retrain import run_job
from training.trainer.processes import end_strays
from training.trainer.workshop import Patience, Workshop


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """job-1's folder; whatever still runs for it is ended behind the test."""
    yield tmp_path / "jobs" / "job-1"
    end_strays(tmp_path / "jobs" / "job-1")


async def ran(shop: Workshop) -> Job:
    """Run job-1 to its end and read it."""
    await shop.store.create(a_job())
    await run_job("job-1", shop=shop)
    return await shop.store.get("job-1")


async def changed(shop: Workshop, change: Change) -> None:
    """What somebody does to job-1 from outside."""
    while True:
        try:
            return await shop.store.advance(apply(await shop.store.get("job-1"), change, now=2000.0))
        except Exception:  # noqa: BLE001  # lost a race: again
            await asyncio.sleep(0.01)


async def killed(worker: "asyncio.Task[None]") -> None:
    """The worker is gone between two of its steps; what it started is not told."""
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker


async def test_a_job_is_trained_and_its_model_kept_with_its_lineage(tmp_path: Path, folder: Path) -> None:
    """From the queue to the shelf; nothing runs afterwards."""
    shop = workshop(tmp_path, Pretended(steps=10, step_s=0.02))

    job = await ran(shop)

    assert (job.status, job.error, job.fine_tuned_model) == (Status.SUCCEEDED, None, "smollm2--1")
    assert (job.examples, job.attempts) == (EXAMPLES, 0)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert left_of(folder) == []
    lineage = json.loads((tmp_path / "models" / "smollm2--1" / "lineage.json").read_text())
    assert (lineage["job"], lineage["recipe"], lineage["examples"]) == ("job-1", "lora", EXAMPLES)
    assert "adapter_model.safetensors" in lineage["sha256"]
    assert not (folder / "output").exists()
    events = await shop.store.events("job-1", limit=1000)
    steps = [event.data["step"] for event in events if event.data and "train_loss" in event.data]
    assert steps == [float(n) for n in range(1, 11)]
    assert [e.data["checkpoint_step"] for e in events if e.data and "checkpoint_step" in e.data] == [5, 10]


async def test_a_second_worker_adopts_what_a_dead_one_left(tmp_path: Path, folder: Path) -> None:
    """One run, and no metric is told twice."""
    store = MemoryJobs()
    shop = workshop(tmp_path, Pretended(steps=30, step_s=0.05), store=store)
    await store.create(a_job())
    first = asyncio.create_task(run_job("job-1", shop=shop))
    await steps_made(folder, 6)
    await killed(first)
    before = who(folder)

    await run_job("job-1", shop=shop)

    job = await store.get("job-1")
    assert (job.status, runs_of(folder)) == (Status.SUCCEEDED, [0])
    assert who(folder)["pid"] == before["pid"]
    events = await store.events("job-1", limit=1000)
    steps = [event.data["step"] for event in events if event.data and "train_loss" in event.data]
    assert steps == [float(n) for n in range(1, 31)]


async def test_worker_and_tree_killed_it_resumes_at_the_step_of_its_checkpoint(
    tmp_path: Path, folder: Path
) -> None:
    """Keeper and trainer killed at once: nothing says how it ended; the next run begins behind step 10."""
    shop = workshop(tmp_path, Pretended(steps=20, step_s=0.05))
    await shop.store.create(a_job())
    first = asyncio.create_task(run_job("job-1", shop=shop))
    await steps_made(folder, 12)
    await killed(first)
    for pid in (who(folder)["pid"], *left_of(folder)):
        os.kill(pid, signal.SIGKILL)

    await run_job("job-1", shop=shop)

    job = await shop.store.get("job-1")
    assert (job.status, runs_of(folder)) == (Status.SUCCEEDED, [0, 10])
    steps = [int(step) for step in (folder / "steps.txt").read_text().split()]
    assert steps[steps.index(10) + 1 :][-10:] == list(range(11, 21))


@pytest.mark.parametrize("ranks", [1, 3])
async def test_a_cancelled_job_leaves_no_process(tmp_path: Path, folder: Path, ranks: int) -> None:
    """Ranks have sessions of their own and get no signal that a group gets."""
    shop = workshop(tmp_path, Pretended(steps=1000, step_s=0.05, ranks=ranks))
    await shop.store.create(a_job())
    worker = asyncio.create_task(run_job("job-1", shop=shop))
    await steps_made(folder, 3)
    assert len(left_of(folder)) == (1 if ranks == 1 else ranks + 1)

    await changed(shop, Change.CANCEL)
    await worker

    assert (await shop.store.get("job-1")).status is Status.CANCELLED
    assert left_of(folder) == []
    assert not (tmp_path / "models").exists()


async def test_a_job_cancelled_while_no_worker_lives_is_ended_by_the_next(
    tmp_path: Path, folder: Path
) -> None:
    """The record is final, and still its tree runs: the redelivered id ends it."""
    shop = workshop(tmp_path, Pretended(steps=1000, step_s=0.05, ranks=2))
    await shop.store.create(a_job())
    first = asyncio.create_task(run_job("job-1", shop=shop))
    await steps_made(folder, 3)
    await killed(first)
    await changed(shop, Change.CANCEL)
    assert left_of(folder) != []

    await run_job("job-1", shop=shop)

    assert left_of(folder) == []


async def test_paused_it_stops_and_goes_on_from_its_checkpoint(tmp_path: Path, folder: Path) -> None:
    """And says in an event from where."""
    shop = workshop(tmp_path, Pretended(steps=20, step_s=0.05))
    await shop.store.create(a_job())
    worker = asyncio.create_task(run_job("job-1", shop=shop))
    await steps_made(folder, 7)
    await changed(shop, Change.PAUSE)
    await worker
    assert left_of(folder) == []
    assert any("resumes from step" in e.message for e in await shop.store.events("job-1", limit=1000))

    await changed(shop, Change.RESUME)
    await run_job("job-1", shop=shop)

    assert (await shop.store.get("job-1")).status is Status.SUCCEEDED
    assert runs_of(folder)[0] == 0
    assert runs_of(folder)[1] % 5 == 0
    assert runs_of(folder)[1] > 0


async def test_an_id_delivered_twice_is_one_run(tmp_path: Path, folder: Path) -> None:
    """Two workers at once: the older claim leaves, the newer one adopts."""
    shop = workshop(tmp_path, Pretended(steps=30, step_s=0.05))
    await shop.store.create(a_job())
    first = asyncio.create_task(run_job("job-1", shop=shop))
    await steps_made(folder, 3)

    await asyncio.gather(first, run_job("job-1", shop=shop))

    assert ((await shop.store.get("job-1")).status, runs_of(folder)) == (Status.SUCCEEDED, [0])


async def test_another_number_of_examples_fails_with_both(tmp_path: Path, folder: Path) -> None:
    """What LLaMA-Factory drops keeps exit code 0."""
    job = await ran(workshop(tmp_path, Pretended(steps=100, examples=38)))

    assert job.error is not None
    assert (job.status, job.error.code) == (Status.FAILED, "examples_lost")
    assert "40" in job.error.message
    assert "38" in job.error.message
    assert left_of(folder) == []


async def test_a_failure_is_told_without_a_word_of_the_dialogues(tmp_path: Path, folder: Path) -> None:
    """The kind of failure, not its text."""
    job = await ran(workshop(tmp_path, Pretended(steps=10, step_s=0.02, raise_at=3)))

    assert job.error is not None
    assert (job.status, job.error.code) == (Status.FAILED, "gpu_memory")
    assert "SECRET" not in job.error.message


async def test_a_run_that_hangs_is_ended_and_failed(tmp_path: Path, folder: Path) -> None:
    """No line, no processor time."""
    patience = Patience(look_every_s=0.05, renew_every_s=0.2, stall_s=1.5)
    shop = workshop(tmp_path, Pretended(steps=10, step_s=0.02, hang_at=3), patience=patience)

    job = await ran(shop)

    assert job.error is not None
    assert (job.status, job.error.code) == (Status.FAILED, "stalled")
    assert left_of(folder) == []


async def test_a_trainer_killed_again_and_again_is_given_up(tmp_path: Path, folder: Path) -> None:
    """Resumed twice from the same checkpoint, not for ever."""
    job = await ran(workshop(tmp_path, Pretended(steps=10, step_s=0.02, die_at=7)))

    assert job.error is not None
    assert (job.status, job.error.code) == (Status.FAILED, "trainer_killed")
    assert runs_of(folder) == [0, 5, 5, 5]
