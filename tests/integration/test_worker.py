"""The real worker process over a real Valkey: jobs pushed as the gateway pushes them, and what ends it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import redis.asyncio

from training.dispatch import dispatch
from training.job import Job, Level, Status, new_job
from training.redis_jobs import RedisJobs
from training.redis_queue import QUEUE, RedisQueue, message, queue_address

ROOT = Path(__file__).parents[2]
# Bounds, not expectations: a worker is ready after about two seconds and runs these jobs in milliseconds.
READY_WITHIN_S = 60
DONE_WITHIN_S = 60
GROUP = "friendo_workers"


class Server(Protocol):
    """The Valkey of one test, as tests/conftest.py starts it."""

    url: str

    def start(self) -> None:
        """Start it on the same port and the same data."""

    def kill(self) -> None:
        """End it at once."""


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(DONE_WITHIN_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


class Worker:
    """One worker process with a home folder of its own."""

    def __init__(self, home: Path, redis_url: str, *options: str) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.log = home.with_suffix(".log")
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
        environment.pop("XDG_CACHE_HOME", None)
        environment.pop("FRIENDO_TRAINING_FOLDER", None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "training.worker", "--redis", redis_url, *options],
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ready(self) -> dict[str, object]:
        """The line that it prints when it takes jobs."""
        overdue = threading.Timer(READY_WITHIN_S, self.process.kill)
        overdue.start()
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
        finally:
            overdue.cancel()
        assert line, f"the worker ended or said nothing: {self.log.read_text()}"
        answer: dict[str, object] = json.loads(line)
        return answer

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait for its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=10)

    def rest(self) -> str:
        """What an ended worker has printed after its first line."""
        assert self.process.stdout is not None
        return self.process.stdout.read()


Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers, and ends by their pid those that the test has left."""
    workers: list[Worker] = []

    def started(redis_url: str, *options: str) -> Worker:
        workers.append(Worker(tmp_path / f"home-{len(workers)}", redis_url, *options))
        return workers[-1]

    yield started
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait()
        if worker.process.stdout is not None:
            worker.process.stdout.close()


class Gateway:
    """What the gateway does with jobs: record, push, read."""

    def __init__(self, url: str) -> None:
        self.client = redis.asyncio.Redis.from_url(url)
        self.queue_client = redis.asyncio.Redis.from_url(queue_address(url))
        self.store = RedisJobs(self.client)

    async def push(self) -> str:
        """Dispatch a new job and return its id."""
        job = new_job(
            job_id=f"job-{uuid.uuid4().hex}", tenant="acme", model="smollm2", recipe="lora", now=time.time()
        )
        await dispatch(job, store=self.store, queue=RedisQueue(self.queue_client), now=time.time())
        return job.id

    async def final(self, job_id: str) -> Job:
        """Wait until the job is final."""

        async def is_final() -> bool:
            return (await self.store.get(job_id)).terminal

        await until(is_final)
        return await self.store.get(job_id)

    async def queue_is_empty(self) -> None:
        """Wait until nothing is in the stream, delivered or not."""

        async def is_empty() -> bool:
            return await self.queue_client.xlen(QUEUE) == 0

        await until(is_empty)


@pytest.fixture
async def gateway(valkey: Server) -> AsyncIterator[Gateway]:
    """The gateway's side of this test's Valkey."""
    side = Gateway(valkey.url)
    yield side
    await side.client.aclose()
    await side.queue_client.aclose()


async def test_a_job_without_the_environment_ends_with_the_command_that_installs_it(
    valkey: Server, start: Start, gateway: Gateway
) -> None:
    """From the push to the record, through funboost, and the queue keeps nothing."""
    worker = start(valkey.url)
    ready = worker.ready()

    job = await gateway.final(await gateway.push())
    await gateway.queue_is_empty()

    program = worker.home / ".cache" / "friendo" / "llamafactory" / "bin" / "llamafactory-cli"
    assert (True, worker.process.pid, False) == (ready["ready"], ready["pid"], ready["llamafactory"])
    assert job.error is not None
    assert (job.status, job.error.code, job.attempts) == (Status.FAILED, "llamafactory_missing", 1)
    assert str(program) in job.error.message
    assert "`make llamafactory`" in job.error.message
    assert [e.level for e in await gateway.store.events(job.id)] == [Level.INFO, Level.INFO, Level.ERROR]


async def test_a_job_for_a_worker_without_a_folder_says_what_to_set(
    valkey: Server, start: Start, gateway: Gateway, tmp_path: Path
) -> None:
    """The program is found where --llamafactory says, and is not run."""
    program = tmp_path / "factory" / "bin" / "llamafactory-cli"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    worker = start(valkey.url, "--llamafactory", str(tmp_path / "factory"))
    ready = worker.ready()

    job = await gateway.final(await gateway.push())

    assert ready["llamafactory"] is True
    assert job.error is not None
    assert (job.status, job.error.code) == (Status.FAILED, "folder_missing")
    assert not (tmp_path / "ran").exists()


async def test_an_idle_worker_ends_in_order_and_leaves_nothing(
    valkey: Server, start: Start, gateway: Gateway
) -> None:
    """On either signal: status 0, no second line on standard output, no file, no complaint in the log."""
    for number in (signal.SIGTERM, signal.SIGINT):
        worker = start(valkey.url)
        worker.ready()
        await gateway.final(await gateway.push())
        await gateway.queue_is_empty()

        status = worker.end(number)

        assert status == 0
        assert worker.rest() == ""
        assert list(worker.home.rglob("*")) == []
        assert "llamafactory_missing" in worker.log.read_text()
        assert [line for line in worker.log.read_text().splitlines() if " INFO " not in line] == []


async def test_a_job_pushed_while_the_worker_is_dead_is_taken_by_the_next(
    valkey: Server, start: Start, gateway: Gateway
) -> None:
    """Killed at once, without a word; what nobody has begun waits in the queue."""
    first = start(valkey.url)
    first.ready()
    await gateway.final(await gateway.push())
    first.end(signal.SIGKILL)
    job_id = await gateway.push()

    start(valkey.url).ready()
    job = await gateway.final(job_id)

    assert (job.status, job.attempts) == (Status.FAILED, 1)


async def test_a_message_that_a_dead_worker_holds_is_taken_up(
    valkey: Server, start: Start, gateway: Gateway
) -> None:
    """Delivered to a worker that has no heartbeat and never acknowledged, it goes back and is run once."""
    stream = gateway.queue_client
    await stream.xgroup_create(QUEUE, GROUP, id=0, mkstream=True)
    job_id = await gateway.push()
    held = await stream.xreadgroup(GROUP, "dead-worker", {QUEUE: ">"}, count=1)

    start(valkey.url).ready()
    job = await gateway.final(job_id)
    await gateway.queue_is_empty()

    assert held
    assert (job.status, job.attempts) == (Status.FAILED, 1)
    assert (await stream.xpending(QUEUE, GROUP))["pending"] == 0


async def test_an_id_that_comes_three_times_is_run_once(
    valkey: Server, start: Start, gateway: Gateway
) -> None:
    """The queue delivers at least once; the record is the truth."""
    job_id = await gateway.push()
    for _ in range(2):
        await RedisQueue(gateway.queue_client).push(job_id)

    start(valkey.url).ready()
    await gateway.queue_is_empty()

    assert (await gateway.store.get(job_id)).attempts == 1
    assert len(await gateway.store.events(job_id)) == 3


async def test_what_is_no_message_does_not_stop_the_queue(
    valkey: Server, start: Start, gateway: Gateway
) -> None:
    """Nonsense, and orders to the library beneath, are dropped; the job behind them is run."""
    orders = {"job_id": "job-unknown", "surplus": 1, "extra": {"can_not_json_serializable_keys": ["job_id"]}}
    for body in ("nonsense", "{}", json.dumps(orders), message("job-unknown", now=1.0)):
        await gateway.queue_client.xadd(QUEUE, {"": body})
    job_id = await gateway.push()

    worker = start(valkey.url)
    worker.ready()
    job = await gateway.final(job_id)
    await gateway.queue_is_empty()

    assert job.status is Status.FAILED
    assert worker.log.read_text().count("holds no job id; dropped") == 2
    assert worker.log.read_text().count("has no record; dropped") == 2


async def test_a_worker_outlives_an_outage_of_redis(valkey: Server, start: Start, gateway: Gateway) -> None:
    """Killed and started again beneath it, Redis is found again; the log has no tracebacks."""
    worker = start(valkey.url)
    worker.ready()
    valkey.kill()
    await asyncio.sleep(2)
    valkey.start()

    job = await gateway.final(await gateway.push())

    assert job.status is Status.FAILED
    assert "does not answer" in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()
    assert worker.end() == 0


async def test_a_worker_started_before_redis_waits_for_it(
    valkey: Server, start: Start, gateway: Gateway
) -> None:
    """It says that it waits, and is ready when Redis is; told to end meanwhile, it ends."""
    valkey.kill()
    patient, recalled = start(valkey.url), start(valkey.url)

    async def both_wait() -> bool:
        return all("does not answer" in worker.log.read_text() for worker in (patient, recalled))

    await until(both_wait)
    status = recalled.end()
    valkey.start()

    assert status == 0
    assert patient.ready()["ready"] is True
    assert (await gateway.final(await gateway.push())).status is Status.FAILED


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "FRIENDO_REDIS_URL"),
        (("--redis", "redis://h/0", "--gpus", "all"), "neither cpu nor numbers"),
        (("--redis", "redis://h/0", "--models", "smollm2"), "is not NAME=PATH"),
        (("--redis", "unix:///run/redis.sock"), "not a socket file"),
        (("--redis", "redis://h/0", "--queue-redis", "redis://h/x"), "number of a database"),
    ],
)
def test_a_wrong_argument_ends_the_worker_with_one_clear_line(options: tuple[str, ...], told: str) -> None:
    """Before anything is imported, opened or started."""
    environment = {name: value for name, value in os.environ.items() if name != "FRIENDO_REDIS_URL"}
    ended = subprocess.run(
        [sys.executable, "-m", "training.worker", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert told in ended.stderr.splitlines()[-1]


async def test_a_worker_told_to_end_with_a_job_at_hand_leaves_it_to_others(
    valkey: Server, valkey_url: str, start: Start, gateway: Gateway
) -> None:
    """The records are away, so the job cannot be done with: the worker ends, and the message stays."""
    elsewhere = queue_address(valkey_url, database=9)
    queue_client = redis.asyncio.Redis.from_url(elsewhere)
    worker = start(valkey.url, "--queue-redis", elsewhere)
    worker.ready()
    valkey.kill()
    await RedisQueue(queue_client).push("job-1")

    async def at_hand() -> bool:
        return "did not answer" in worker.log.read_text()

    await until(at_hand)
    status = worker.end()
    pending = (await queue_client.xpending(QUEUE, GROUP))["pending"]
    await queue_client.flushdb()
    await queue_client.aclose()

    assert status == 0
    assert pending == 1
