"""`/v1/fine_tuning/jobs` through OpenAI's own client, against a gateway process and a real Valkey."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
import redis
import redis.asyncio

from gateway.settings import Settings, Store, Training
from gateway.training_edges import open_training
from tests.conftest import Valkey
from tests.gateway_process import Gateway, running_gateway
from tests.tenants import guarded_gateway, key_of
from training.job import Change, Job, JobError, JobEvent, apply
from training.redis_jobs import RedisJobs
from training.redis_queue import QUEUE, queue_address
from training.tenant_name import tenant_name

NODE = "vllm=http://127.0.0.1:1"
LINE = b'{"messages": [{"role": "user", "content": "SECRET"}, {"role": "assistant", "content": "hm"}]}\n'


def options(folder: Path, valkey: Valkey) -> tuple[str, ...]:
    """Of a gateway with training."""
    return ("--redis", valkey.url, "--set", f"training.folder={folder}")


@pytest.fixture
def gateway(tmp_path: Path, valkey: Valkey) -> Iterator[Gateway]:
    """One that asks nobody for a key."""
    with running_gateway(NODE, options=options(tmp_path, valkey)) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture
def file_id(client: openai.OpenAI) -> str:
    """An uploaded training file."""
    return client.files.create(file=("a.jsonl", LINE), purpose="fine-tune").id


@pytest.fixture
async def store(valkey: Valkey) -> AsyncIterator[RedisJobs]:
    """As a worker has it."""
    async with redis.asyncio.Redis.from_url(valkey.url) as one:
        yield RedisJobs(one)


def queued(valkey: Valkey) -> list[str]:
    """Ids that a worker would be handed, in order."""
    with redis.Redis.from_url(queue_address(valkey.url)) as one:
        return [json.loads(fields[b""])["job_id"] for _, fields in one.xrange(QUEUE)]


async def went(store: RedisJobs, job_id: str, *changes: Change, **facts: Any) -> Job:
    """The job after what a worker did to it."""
    for change in changes:
        error = JobError("bad_dataset", "line 3: no messages") if change is Change.FAIL else None
        job = apply(await store.get(job_id), change, now=time.time(), error=error)
        await store.advance(msgspec.structs.replace(job, **facts))
    return await store.get(job_id)


async def trained(store: RedisJobs, job_id: str, began: float) -> None:
    """Thirty steps of a hundred, a second each, and two checkpoints."""
    for n in range(1, 31):
        data = {"step": n, "total_steps": 100, "train_loss": 3.0 / n}
        await store.append_event(job_id, JobEvent(at=began + n, message=f"step {n}", data=data))
    for step in (10, 20):
        data = {"checkpoint_step": step, "valid_loss": 1.0 / step}
        await store.append_event(job_id, JobEvent(at=began, message="saved", data=data))


def refused(status: int, call: Any, *args: Any, **kwargs: Any) -> openai.APIStatusError:
    """The error of a call that must fail so."""
    with pytest.raises(openai.APIStatusError) as caught:
        call(*args, **kwargs)
    assert (status, "false") == (caught.value.status_code, caught.value.response.headers["x-should-retry"])
    return caught.value


async def test_a_job_is_created_recorded_and_queued(
    client: openai.OpenAI, file_id: str, valkey: Valkey, store: RedisJobs
) -> None:
    """With everything that the client can say, read back by the client's own types."""
    created = client.fine_tuning.jobs.create(
        model="smollm2",
        training_file=file_id,
        validation_file=file_id,
        suffix="mia",
        seed=7,
        metadata={"who": "ada"},
        method={
            "type": "dpo",
            "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 3, "batch_size": "auto"}},
        },
        extra_body={"recipe": "short"},
    )

    assert created == client.fine_tuning.jobs.retrieve(created.id)
    assert ("fine_tuning.job", "queued", "smollm2", 7) == (
        *(created.object, created.status, created.model, created.seed),
    )
    assert created.metadata == {"who": "ada"}
    assert created.method is not None
    assert created.method.dpo is not None
    assert created.method.dpo.hyperparameters is not None
    assert created.method.dpo.hyperparameters.to_dict() == {
        "beta": 0.2,
        "n_epochs": 3,
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
    }
    assert (None, None, None) == (created.finished_at, created.trained_tokens, created.fine_tuned_model)
    assert [created.id] == queued(valkey)
    record = await store.get(created.id)
    assert ("short", "mia", "dpo", 0.2) == (
        *(record.recipe, record.suffix, record.method, record.hyperparameters.beta),
    )


def test_the_deprecated_hyperparameters_and_the_defaults(client: openai.OpenAI, file_id: str) -> None:
    """A seed is made up, the recipe is the settings', and what is "auto" is left to it."""
    created = client.fine_tuning.jobs.create(
        model="m", training_file=file_id, hyperparameters={"n_epochs": 2, "learning_rate_multiplier": 1.5}
    )

    assert created.hyperparameters.to_dict() == {
        "n_epochs": 2,
        "learning_rate_multiplier": 1.5,
        "batch_size": "auto",
    }
    assert created.to_dict()["recipe"] == "lora"
    assert created.method is not None
    assert created.method.type == "supervised"
    assert created.seed > 0


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"training_file": "file-none"}, "training_file"),
        ({"training_file": "ds-0123456789abcdef"}, "training_file"),
        ({"training_file": ""}, "training_file"),
        ({"validation_file": "file-none"}, "validation_file"),
        ({"model": "a b"}, "model"),
        ({"suffix": "a--b"}, "suffix"),
        ({"suffix": "../up"}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}}},
            "method.supervised.hyperparameters.beta",
        ),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 1.5}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_field(
    client: openai.OpenAI, file_id: str, valkey: Valkey, wrong: dict[str, Any], param: str
) -> None:
    """And nothing is queued."""
    error = refused(400, client.fine_tuning.jobs.create, **{"model": "m", "training_file": file_id, **wrong})

    assert param == error.param
    assert [] == queued(valkey)
    assert [] == client.fine_tuning.jobs.list().data


def test_a_dataset_stands_for_a_file_for_its_own_tenant(client: openai.OpenAI, tmp_path: Path) -> None:
    """Whose it is, its manifest says."""
    for name, tenant in (("ds-mine", "default"), ("ds-yours", "umbrella")):
        (tmp_path / "datasets" / name).mkdir(parents=True)
        manifest = {"tenant": tenant_name(tenant)}
        (tmp_path / "datasets" / name / "manifest.json").write_text(json.dumps(manifest))

    created = client.fine_tuning.jobs.create(model="m", training_file="ds-mine")
    error = refused(400, client.fine_tuning.jobs.create, model="m", training_file="ds-yours")

    assert created.training_file == "ds-mine"
    assert (error.param, error.code) == ("training_file", "file_not_found")


def test_one_idempotency_key_is_one_job(client: openai.OpenAI, file_id: str, valkey: Valkey) -> None:
    """Asked again, the same job; its id is queued again, which workers bear."""
    headers = {"Idempotency-Key": "once"}

    first = client.fine_tuning.jobs.create(model="m", training_file=file_id, extra_headers=headers)
    again = client.fine_tuning.jobs.create(model="m", training_file=file_id, extra_headers=headers)
    error = refused(
        400, client.fine_tuning.jobs.create, model="x", training_file=file_id, extra_headers=headers
    )
    other = client.fine_tuning.jobs.create(model="m", training_file=file_id)

    assert first == again
    assert first.id != other.id
    assert error.code == "idempotency_key_in_use"
    assert [first.id, first.id, other.id] == queued(valkey)


async def test_jobs_are_paused_resumed_and_cancelled(
    client: openai.OpenAI, file_id: str, valkey: Valkey, store: RedisJobs
) -> None:
    """Twice the same is once; what the table does not allow is a conflict with words."""
    jobs = client.fine_tuning.jobs
    job = jobs.create(model="m", training_file=file_id)

    assert [jobs.pause(job.id).status, jobs.pause(job.id).status] == ["paused", "paused"]
    assert jobs.resume(job.id).status == "queued"
    assert [job.id, job.id] == queued(valkey)
    await went(store, job.id, Change.CLAIM)
    assert jobs.retrieve(job.id).status == "validating_files"
    assert "which allows no resume" in refused(409, jobs.resume, job.id).message
    cancelled = jobs.cancel(job.id)
    assert ("cancelled", True) == (cancelled.status, cancelled.finished_at is not None)
    assert cancelled == jobs.cancel(job.id)
    assert refused(409, jobs.pause, job.id).code == "fine_tune_status"
    assert refused(404, jobs.cancel, "ftjob-none").code == "fine_tune_not_found"
    assert [event.message for event in jobs.list_events(job.id)] == [
        *("cancelled by its owner", "queued again by its owner", "paused by its owner", "queued"),
    ]


async def test_a_running_job_shows_its_metrics_checkpoints_and_end(
    client: openai.OpenAI, gateway: Gateway, file_id: str, store: RedisJobs
) -> None:
    """As events come from a worker; the operator sees the curve."""
    jobs = client.fine_tuning.jobs
    job = jobs.create(model="m", training_file=file_id)
    await went(store, job.id, Change.CLAIM, Change.START)
    began = time.time()
    await trained(store, job.id, began)

    running = jobs.retrieve(job.id)
    events = list(jobs.list_events(job.id, limit=10))
    found = list(jobs.checkpoints.list(job.id, limit=1))
    async with httpx.AsyncClient(trust_env=False) as plain:
        listed = (await plain.get(f"{gateway.admin_url}/admin/jobs")).json()["data"]

    assert running.estimated_finish == pytest.approx(began + 100, abs=1.5)
    assert len(events) == len({event.id for event in events}) == 33
    assert events[0].message == "saved"
    assert (events[2].type, events[2].data) == (
        "metrics",
        {"step": 30, "total_steps": 100, "train_loss": 0.1},
    )
    assert events[-1].type == "message"
    assert [20, 10] == [one.step_number for one in found]
    assert (found[0].metrics.step, found[0].metrics.valid_loss) == (20, 0.05)
    assert [(job.id, 30, 100, "default")] == [
        (one["id"], one["step"], one["total_steps"], one["tenant"]) for one in listed
    ]
    assert [1, 30] == [listed[0]["loss"][0]["step"], listed[0]["loss"][29]["step"]]

    await went(store, job.id, Change.SUCCEED, trained_tokens=99, fine_tuned_model="m--1", finished_at=began)
    ended = jobs.retrieve(job.id)
    assert ("succeeded", 99, "m--1", int(began), None) == (
        *(ended.status, ended.trained_tokens, ended.fine_tuned_model, ended.finished_at),
        ended.estimated_finish,
    )


async def test_a_failed_job_says_why(client: openai.OpenAI, file_id: str, store: RedisJobs) -> None:
    """Code, words and the parameter that is at fault."""
    job = client.fine_tuning.jobs.create(model="m", training_file=file_id)
    await went(store, job.id, Change.CLAIM, Change.FAIL)

    error = client.fine_tuning.jobs.retrieve(job.id).error

    assert error is not None
    assert ("bad_dataset", "line 3: no messages", "training_file") == (error.code, error.message, error.param)


def test_jobs_are_listed_by_page_and_metadata(client: openai.OpenAI, file_id: str) -> None:
    """The client walks the pages by itself."""
    jobs = client.fine_tuning.jobs
    ids = [
        jobs.create(model="m", training_file=file_id, metadata={"n": str(n % 2)} if n else None).id
        for n in range(5)
    ]

    assert sorted(ids) == sorted(one.id for one in jobs.list(limit=2))
    assert {ids[1], ids[3]} == {one.id for one in jobs.list(limit=1, metadata={"n": "1"})}
    assert [ids[0]] == [one.id for one in jobs.list(extra_query={"metadata": "null"})]
    assert refused(404, jobs.list, after="ftjob-none")
    assert refused(400, jobs.list, limit=1000).param == "limit"


def test_no_tenant_sees_anothers_jobs(tmp_path: Path, valkey: Valkey) -> None:
    """Nor its files, by any of the paths; the operator's list asks for the operator's key."""
    with guarded_gateway(NODE, valkey=valkey, options=("--set", f"training.folder={tmp_path}")) as gateway:
        keys = [key_of(gateway, valkey, tenant, "inference") for tenant in ("acme", "umbrella")]
        url = f"{gateway.url}/v1"
        with (
            openai.OpenAI(base_url=url, api_key=keys[0], max_retries=0) as mine,
            openai.OpenAI(base_url=url, api_key=keys[1], max_retries=0) as yours,
        ):
            file = mine.files.create(file=("a.jsonl", LINE), purpose="fine-tune")
            job = mine.fine_tuning.jobs.create(model="m", training_file=file.id)
            other = yours.fine_tuning.jobs

            assert [] == yours.files.list().data == other.list().data
            for call in (other.retrieve, other.cancel, other.pause, other.resume, other.list_events):
                refused(404, call, job.id)
            refused(404, other.checkpoints.list, job.id)
            refused(404, yours.files.content, file.id)
            refused(400, other.create, model="m", training_file=file.id)
        admin = httpx.get(
            f"{gateway.admin_url}/admin/jobs", headers={"authorization": f"Bearer {keys[0]}"}, trust_env=False
        )
    assert admin.status_code == 403


def test_an_acknowledged_job_survives_the_kill(tmp_path: Path, valkey: Valkey) -> None:
    """SIGKILL right behind the answer: the record, the queue and the file are there."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(running_gateway(NODE, options=options(tmp_path, valkey)))
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            file = client.files.create(file=("a.jsonl", LINE), purpose="fine-tune")
            job = client.fine_tuning.jobs.create(model="m", training_file=file.id)
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait(10)

    with (
        running_gateway(NODE, options=options(tmp_path, valkey)) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert job == client.fine_tuning.jobs.retrieve(job.id)
        assert [job.id] == queued(valkey)


def test_a_store_that_is_away_is_told_and_logged_once(
    client: openai.OpenAI, gateway: Gateway, file_id: str, valkey: Valkey
) -> None:
    """503 and come again; what the server said stands in the log and not in the answer."""
    valkey.kill()

    for _ in range(3):
        with pytest.raises(openai.APIStatusError) as caught:
            client.fine_tuning.jobs.list()
        assert (503, "store_unavailable") == (caught.value.status_code, caught.value.code)
        assert "127.0.0.1" not in caught.value.message
    assert gateway.stderr().count("the store of training jobs and files failed") == 1


def test_a_store_in_memory_holds_files_and_no_jobs(tmp_path: Path) -> None:
    """And says what to set."""
    with running_gateway(NODE, options=("--set", f"training.folder={tmp_path}")) as gateway:
        files = httpx.get(f"{gateway.url}/v1/files", trust_env=False)
        jobs = httpx.get(f"{gateway.url}/v1/fine_tuning/jobs", trust_env=False)

    assert (200, 501) == (files.status_code, jobs.status_code)
    assert "store.url" in jobs.json()["error"]["message"]


@pytest.mark.parametrize("url", ["redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/main"])
async def test_a_cluster_and_sentinels_need_a_queue_beside_them(tmp_path: Path, url: str) -> None:
    """Without one, what to set; with one, jobs."""
    shown = []
    for queue in ("", "redis://127.0.0.1:1/7"):
        settings = Settings(store=Store(url=url), training=Training(folder=str(tmp_path), queue_url=queue))
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(redis.asyncio.Redis())
            shown.append(await open_training(settings, client, stack))

    assert [True, False] == [one.jobs is None for one in shown]
    assert "training.queue_url" in shown[0].why
    assert None not in [one.files for one in shown]


def test_a_gateway_with_training_does_not_import_funboost(tmp_path: Path) -> None:
    """It would cost half a second, 60 MiB and a thousand modules."""
    code = "import sys, gateway.app; sys.exit('funboost' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
