"""`friendo train` and `friendo worker` as a user runs them, over a real Valkey."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import redis.asyncio

from training.disk_files import DiskFiles
from training.job import Change, Job, JobEvent, Status, apply, new_job
from training.redis_jobs import RedisJobs

ROOT = Path(__file__).parents[2]
TALK = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hm"}]}\n'
FILE = ("--file", "talk.jsonl")
# Bounds, not expectations.
WITHIN_S = 60


class Server(Protocol):
    """The Valkey of one test, as tests/conftest.py starts it."""

    url: str


class Friendo:
    """Runs the command with a home of its own and settings that name one store."""

    def __init__(self, home: Path, store: str) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FRIENDO")}
        for name in ("RUNTIME_ENV", "XDG_CACHE_HOME", "FORCE_COLOR"):
            kept.pop(name, None)
        self.env = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "FRIENDO__STORE__URL": store}
        self.env["FRIENDO__TRAINING__FOLDER"] = str(home / "training")
        (home / "config").mkdir(parents=True)
        (home / "talk.jsonl").write_text(TALK)
        (home / "config" / "dev.yaml").write_text("nodes: [{engine: vllm, url: 'http://127.0.0.1:1'}]\n")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it; whoever does ends it."""
        return subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        process = self.start(*arguments)
        try:
            said, complained = process.communicate(timeout=WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(arguments, process.returncode, said, complained)


@pytest.fixture
def friendo(tmp_path: Path, valkey: Server) -> Friendo:
    """The command over this test's Valkey."""
    return Friendo(tmp_path / "home", valkey.url)


@pytest.fixture
async def store(valkey: Server) -> AsyncIterator[RedisJobs]:
    """The records of this test's Valkey."""
    async with redis.asyncio.Redis.from_url(valkey.url) as client:
        yield RedisJobs(client)


@pytest.fixture
def worker(friendo: Friendo, tmp_path: Path) -> Iterator[Path]:
    """A running `friendo worker`; yields the empty folder that it takes for LLaMA-Factory's environment."""
    empty = tmp_path / "empty"
    empty.mkdir()
    process = friendo.start("worker", "--llamafactory", str(empty))
    overdue = threading.Timer(WITHIN_S, process.kill)
    overdue.start()
    assert process.stdout is not None
    ready = process.stdout.readline()
    overdue.cancel()
    if '"ready": true' not in ready:
        process.kill()
        raise AssertionError(process.communicate()[1])
    yield empty
    process.terminate()
    process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0


async def stored(store: RedisJobs, job_id: str, *changes: Change) -> Job:
    """A job in the store that nobody was told of, after some changes."""
    job = new_job(job_id=job_id, tenant="acme", model="smollm2", recipe="lora", now=time.time())
    await store.create(job)
    await store.append_event(job.id, JobEvent(at=time.time(), message="queued"))
    for change in changes:
        job = apply(job, change, now=time.time())
        await store.advance(job)
    return job


async def test_a_job_without_llamafactory_fails_with_the_command_that_installs_it(
    friendo: Friendo, worker: Path, store: RedisJobs
) -> None:
    """From the command line through the queue and the worker and back, in plain lines."""
    done = friendo.run("train", "--model", "smollm2", *FILE, "--tenant", "acme", "--recipe", "short")

    (job,) = await store.list("acme")
    assert (Status.FAILED, "smollm2", "short") == (job.status, job.model, job.recipe)
    assert done.returncode == 1
    assert f"job {job.id}: failed (llamafactory_missing). " in done.stderr
    assert str(worker / "bin" / "llamafactory-cli") in done.stderr
    assert "`make llamafactory`" in done.stderr
    assert ["queued", "taken by a worker, attempt 1 of 3"] == [
        line.split("  ", 1)[1] for line in done.stdout.splitlines()
    ]
    assert "\x1b" not in done.stdout + done.stderr


async def test_detached_prints_the_id_alone_and_follow_takes_it(friendo: Friendo, worker: Path) -> None:
    """A script takes the id from standard output; the ended job can still be looked at."""
    submitted = friendo.run("train", "--model", "smollm2", *FILE, "--detach")
    job_id = submitted.stdout.strip()
    followed = friendo.run("train", "--follow", job_id)

    assert (0, 1) == (submitted.returncode, followed.returncode)
    assert f"{job_id}\n" == submitted.stdout
    assert f"friendo train --follow {job_id}\n" in submitted.stderr
    assert f"job {job_id}: failed (llamafactory_missing)" in followed.stderr


async def test_a_job_that_succeeds_ends_the_command_with_zero(friendo: Friendo, store: RedisJobs) -> None:
    """The exit code is the job's."""
    job = await stored(store, "good", Change.CLAIM, Change.START, Change.SUCCEED)

    done = friendo.run("train", "--follow", job.id)

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.endswith("job good: succeeded\n")


async def test_a_file_is_copied_and_the_options_are_the_jobs(friendo: Friendo, store: RedisJobs) -> None:
    """What is trained on is what was there when the command was given."""
    options = ("--suffix", "mia", "--seed", "7", "--epochs", "2.5", "--tenant", "acme", "--detach")
    done = friendo.run("train", "--model", "smollm2", *FILE, *options)

    job = await store.get(done.stdout.strip())
    files = DiskFiles(friendo.home / "training" / "files", max_bytes=1, max_files=1)
    assert TALK == (await files.path("acme", job.training_file)).read_text()
    assert ("mia", 7, 2.5, "lora") == (job.suffix, job.seed, job.hyperparameters.n_epochs, job.recipe)


async def test_a_refused_job_leaves_no_file(friendo: Friendo) -> None:
    """Its copy goes with it."""
    friendo.run("train", "--model", "two words", *FILE)

    files = DiskFiles(friendo.home / "training" / "files", max_bytes=1, max_files=1)
    assert await files.list("default") == ()


async def test_a_job_is_paused_resumed_and_cancelled(friendo: Friendo, store: RedisJobs) -> None:
    """Each says where the job stands then; what the table does not allow is told."""
    job = await stored(store, "mine")

    done = [
        friendo.run("train", option, job.id) for option in ("--pause", "--resume", "--cancel", "--resume")
    ]

    assert ["job mine: paused\n", "job mine: queued\n", "job mine: cancelled\n", ""] == [
        one.stdout for one in done
    ]
    assert "job mine is cancelled, which allows no resume" in done[3].stderr
    assert (await store.get(job.id)).status is Status.CANCELLED


def test_without_a_folder_the_command_says_what_to_set(friendo: Friendo) -> None:
    """Where a job's file would go."""
    del friendo.env["FRIENDO__TRAINING__FOLDER"]

    done = friendo.run("train", "--model", "smollm2", *FILE)

    assert (1, True) == (done.returncode, "training.folder is not set" in done.stderr)


async def test_a_cancelled_job_ends_the_command_with_one(friendo: Friendo, store: RedisJobs) -> None:
    """What was wanted did not come about."""
    job = await stored(store, "stopped", Change.CANCEL)

    done = friendo.run("train", "--follow", job.id)

    assert (1, "job stopped: cancelled\n") == (done.returncode, done.stderr)


async def test_interrupting_the_command_leaves_the_job_and_says_how_to_look_again(
    friendo: Friendo, valkey: Server, store: RedisJobs
) -> None:
    """Nobody loses a run by closing a terminal."""
    process = friendo.start("train", "--model", "smollm2", *FILE, "--redis", valkey.url)
    overdue = threading.Timer(WITHIN_S, process.kill)
    overdue.start()
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=WITHIN_S)
    overdue.cancel()

    (job,) = await store.list("default")
    assert first.endswith("queued\n")
    assert (130, Status.QUEUED) == (process.returncode, job.status)
    assert f"friendo train --follow {job.id} --redis {valkey.url}\n" in complained
    assert "Traceback" not in complained


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give --model NAME to submit a job, or --follow JOB_ID"),
        (("--model", "a", "--follow", "b"), "give --model NAME to submit a job, or --follow JOB_ID"),
        (("--follow", "b", "--detach"), "--follow waits and --detach does not"),
        (("--follow", "nobody"), "there is no job nobody"),
        (("--model", "two words", *FILE), "model: must be 1 to 256 characters"),
        (("--model", "a", *FILE, "--redis", "unix:///tmp/socket"), "not a socket file"),
        (("--model", "a"), "give what to train on: --file PATH, or --dataset ID"),
        (("--model", "a", *FILE, "--dataset", "ds-1"), "give what to train on"),
        (("--model", "a", "--file", "nowhere"), "--file: nowhere cannot be read: No such file"),
        (("--model", "a", "--dataset", "ds-1"), "there is no file ds-1"),
        (("--model", "a", *FILE, "--suffix", "a b"), "suffix is 1 to 64"),
        (("--model", "a", *FILE, "--epochs", "0"), "n_epochs must be"),
        (("--cancel", "a", "--pause", "a"), "one of --cancel, --pause, --resume"),
        (("--cancel", "nobody"), "there is no job nobody"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(
    friendo: Friendo, arguments: tuple[str, ...], told: str
) -> None:
    """The user's own mistake comes back in words, without a traceback."""
    done = friendo.run("train", *arguments)

    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert told in done.stderr


def test_an_absent_store_is_told_in_one_line(tmp_path: Path, unused_port: int) -> None:
    """Nothing was submitted, so there is nothing to wait for."""
    friendo = Friendo(tmp_path / "home", f"redis://127.0.0.1:{unused_port}/0")

    done = friendo.run("train", "--model", "smollm2", *FILE)

    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert "the job store did not answer" in done.stderr


def test_a_worker_for_a_store_without_a_queue_is_refused(friendo: Friendo) -> None:
    """`memory` is a store of one process; a worker is another."""
    done = friendo.run("worker", "--redis", "memory")

    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("friendo worker: --redis: expected redis://HOST:PORT")


def test_the_command_line_does_not_import_what_only_the_worker_needs() -> None:
    """The package funboost changes the process that imports it; redis would slow `--help` down."""
    script = "import sys, gateway.cli; print(sorted({'funboost', 'redis', 'training'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=WITHIN_S, check=True
    )

    assert done.stdout == "[]\n"
