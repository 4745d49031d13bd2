"""Real worker processes over a real Valkey: killed, frozen, handed an id twice, their Redis restarted."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest
import redis.asyncio

from tests.trainers.rooms import a_job, left_of, runs_of, steps_made, who
from training.dispatch import dispatch
from training.errors import StoreUnavailable
from training.job import Job, Status
from training.redis_jobs import RedisJobs
from training.redis_queue import RedisQueue, queue_address
from training.trainer.processes import end_strays

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "trainers" / "worker_program.py"
WITHIN_S = 60


class Server(Protocol):
    """The Valkey of one test."""

    url: str

    def start(self) -> None:
        """On the same port and data."""

    def kill(self) -> None:
        """At once."""


class Place:
    """A folder, records, a queue, and workers."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.folder = root / "jobs" / "job-1"
        self.client = redis.asyncio.Redis.from_url(url)
        self.queue_client = redis.asyncio.Redis.from_url(queue_address(url))
        self.store = RedisJobs(self.client)
        self.queue = RedisQueue(self.queue_client)
        self.workers: list[subprocess.Popen[str]] = []
        self._url = url

    def start(self, *, steps: int = 60, step_s: float = 0.1) -> subprocess.Popen[str]:
        """One more worker; returns when it takes jobs."""
        with (self.root / f"worker-{len(self.workers)}.log").open("wb") as log:
            options = ("--redis", self._url, "--folder", str(self.root), "--gpus", "cpu")
            worker = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(steps), str(step_s), *options],
                cwd=self.root,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.workers.append(worker)
        assert worker.stdout is not None
        line = worker.stdout.readline()
        assert line, (self.root / f"worker-{len(self.workers) - 1}.log").read_text()
        assert json.loads(line)["ready"] is True
        return worker

    async def submit(self) -> None:
        """job-1, as the gateway does."""
        await dispatch(a_job(), store=self.store, queue=self.queue, now=time.time())

    async def until(self, holds: Callable[[Job], bool], job_id: str = "job-1") -> Job:
        """Wait for a job to be as wanted."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                with suppress(StoreUnavailable):  # a test restarts the server beneath this connection
                    if holds(job := await self.store.get(job_id)):
                        return job
                await asyncio.sleep(0.05)

    async def final(self) -> Job:
        """Wait for its end."""
        return await self.until(lambda job: job.terminal)


@pytest.fixture
async def place(valkey: Server, tmp_path: Path) -> AsyncIterator[Place]:
    """What a test leaves running is ended by its id."""
    one = Place(tmp_path, valkey.url)
    yield one
    for worker in one.workers:
        worker.kill()
        worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()
    end_strays(one.folder)
    await one.client.aclose()
    await one.queue_client.aclose()


async def test_a_killed_workers_run_is_adopted(place: Place) -> None:
    """By kill -9; the trainer goes on, the next worker finishes with it."""
    first = place.start()
    await place.submit()
    await steps_made(place.folder, 3)
    first.kill()
    first.wait()
    before = who(place.folder)

    place.start()
    await place.queue.push("job-1")
    job = await place.final()

    assert (job.status, job.error, runs_of(place.folder)) == (Status.SUCCEEDED, None, [0])
    assert who(place.folder) == before


async def test_a_killed_worker_and_tree_are_resumed_from_the_checkpoint(place: Place) -> None:
    """At its exact step."""
    first = place.start(steps=40)
    await place.submit()
    await steps_made(place.folder, 12)
    first.kill()
    first.wait()
    for pid in (who(place.folder)["pid"], *left_of(place.folder)):
        os.kill(pid, signal.SIGKILL)

    place.start(steps=40)
    await place.queue.push("job-1")
    job = await place.final()

    assert (job.status, job.error) == (Status.SUCCEEDED, None)
    begun = runs_of(place.folder)
    assert begun[0] == 0
    assert begun[1:] in ([10], [15])


async def test_a_frozen_worker_finds_its_claim_outdated_and_touches_nothing(place: Place) -> None:
    """Frozen for longer than its GPU lease; a second one adopts; continued, the first one only leaves."""
    first = place.start()
    await place.submit()
    await steps_made(place.folder, 3)
    first.send_signal(signal.SIGSTOP)
    place.start()
    await place.queue.push("job-1")
    await place.until(lambda job: job.fence == 2)
    await asyncio.sleep(1.5)

    first.send_signal(signal.SIGCONT)
    job = await place.final()

    assert (job.status, job.fence, runs_of(place.folder)) == (Status.SUCCEEDED, 2, [0])
    assert "another claim" in (place.root / "worker-0.log").read_text()
    assert first.poll() is None
    succeeded = [e for e in await place.store.events("job-1", limit=1000) if "succeeded" in e.message]
    assert len(succeeded) == 1


async def test_a_training_outlives_a_restart_of_redis(place: Place, valkey: Server) -> None:
    """The run goes on, and what was to be written is written when Redis is back."""
    place.start(steps=50)
    await place.submit()
    await steps_made(place.folder, 3)
    valkey.kill()
    await steps_made(place.folder, 15)
    valkey.start()

    job = await place.final()

    assert (job.status, job.error, job.fence) == (Status.SUCCEEDED, None, 1)
    assert runs_of(place.folder) == [0]
    assert "Traceback" not in (place.root / "worker-0.log").read_text()


async def test_two_jobs_never_train_at_once_on_one_machine(place: Place) -> None:
    """Two workers, one CPU to lease: the second job waits and says so."""
    place.start(steps=15)
    place.start(steps=15)
    await place.submit()
    await dispatch(a_job("job-2"), store=place.store, queue=place.queue, now=time.time())

    one = await place.final()
    two = await place.until(lambda job: job.terminal, "job-2")

    assert (one.status, two.status) == (Status.SUCCEEDED, Status.SUCCEEDED)
    assert {one.fine_tuned_model, two.fine_tuned_model} == {"smollm2--1", "smollm2--2"}
    spans = sorted(
        (path.stat().st_ctime, json.loads((path.parent / "rc.json").read_text())["at"])
        for path in place.root.glob("jobs/*/pid.json")
    )
    assert spans[0][1] <= spans[1][0]
