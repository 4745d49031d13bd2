"""What `friendo train` hands over: a new job with its file, or a change of an earlier one."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from gateway.api.fine_tuning_body import read_wanted
from gateway.cli.job_addresses import JobAddresses
from gateway.errors import BadOption, BadRequest
from gateway.fine_tuning import TrainingJobs
from gateway.settings import Training
from training.disk_files import DiskFiles
from training.errors import RequestFault
from training.job import Change, Job
from training.redis_jobs import RedisJobs
from training.redis_queue import RedisQueue

_ANSWER_WITHIN_S = 5.0
_PIECE = 1024 * 1024
_BESIDE_THE_FILE = "a file's name stands in for its id"


class Order(msgspec.Struct, frozen=True):
    """A job as the options say it; one of `file` and `dataset` is given."""

    tenant: str
    model: str
    file: Path | None
    dataset: str
    recipe: str
    suffix: str
    seed: int | None
    epochs: float | None


async def submit(addresses: JobAddresses, training: Training, order: Order) -> Job:
    """Copy the file into the folder, if there is one, and hand over the job.

    Raises GatewayError, TrainingError. A job that is refused leaves no file behind.
    """
    if not training.folder:
        raise BadOption("training.folder is not set: name a folder there that gateway and workers share")
    wanted = read_wanted(_fields(order), recipe=training.recipe)
    files = _files(training)
    async with _jobs(addresses, training) as (jobs, _):
        if order.file is None:
            return await jobs.create(order.tenant, wanted)
        content = _pieces(order.file)
        stored = await files.create(order.tenant, order.file.name, "fine-tune", content, now=time.time())
        try:
            return await jobs.create(order.tenant, msgspec.structs.replace(wanted, training_file=stored.id))
        except (RequestFault, BadRequest):
            await files.delete(order.tenant, stored.id)
            raise


async def change(addresses: JobAddresses, training: Training, job_id: str, wanted: Change) -> Job:
    """The job after it, whoever's it is. Raises TrainingError."""
    async with _jobs(addresses, training) as (jobs, store):
        return await jobs.change((await store.get(job_id)).tenant, job_id, wanted)


def client(url: str) -> Redis:
    """For one command; its owner closes it."""
    return Redis.from_url(url, socket_timeout=_ANSWER_WITHIN_S, socket_connect_timeout=_ANSWER_WITHIN_S)


@asynccontextmanager
async def _jobs(addresses: JobAddresses, training: Training) -> AsyncIterator[tuple[TrainingJobs, RedisJobs]]:
    async with client(addresses.records) as records, client(addresses.queue) as ids:
        store, datasets = RedisJobs(records), Path(training.folder) / "datasets"
        yield TrainingJobs(store, RedisQueue(ids), _files(training), datasets, time.time), store


def _files(training: Training) -> DiskFiles:
    folder = Path(training.folder) / "files"
    return DiskFiles(folder, max_bytes=training.max_file_bytes, max_files=training.max_files)


def _fields(order: Order) -> dict[str, Any]:
    """As they would come over HTTP, where they are checked."""
    epochs = {} if order.epochs is None else {"n_epochs": order.epochs}
    return {
        "model": order.model,
        "training_file": order.dataset or _BESIDE_THE_FILE,
        "recipe": order.recipe,
        "suffix": order.suffix,
        "seed": order.seed,
        "method": {"type": "supervised", "supervised": {"hyperparameters": epochs}},
    }


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    """Its content. Nothing else runs in this process, so it is read where it is asked for."""
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                yield piece
    except OSError as error:
        raise BadOption(f"--file: {file} cannot be read: {error.strerror}") from error
