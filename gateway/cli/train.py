"""`friendo train`: submits a training job and shows what becomes of it, or shows that of an earlier one.

The job goes on whether anybody looks or not. Its id goes to standard output alone with --detach, so that a
script can take it.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.cli.job_addresses import JobAddresses
    from training.job import Job

FAILED = 1
INTERRUPTED = 130

_ANSWER_WITHIN_S = 5.0
_Model = Annotated[str | None, typer.Option(help="The model to train.")]
_Recipe = Annotated[str, typer.Option(metavar="NAME", help="How to train; this version only records it.")]
_Tenant = Annotated[str, typer.Option(help="Whose job it is.")]
_Redis = Annotated[
    str | None, typer.Option(metavar="URL", help="Redis with the job records.", show_default="store.url")
]
_QueueRedis = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Redis with the queue.", show_default="another database of the same server"
    ),
]
_Detach = Annotated[bool, typer.Option("--detach", help="Print the job's id and do not wait.")]
_Follow = Annotated[
    str | None, typer.Option("--follow", metavar="JOB_ID", help="Submit nothing; show this job.")
]


def train(  # noqa: PLR0913, PLR0917 - each is an option of the command
    model: _Model = None,
    recipe: _Recipe = "lora",
    tenant: _Tenant = "default",
    redis: _Redis = None,
    queue_redis: _QueueRedis = None,
    detach: _Detach = False,  # noqa: FBT002 - a flag
    follow: _Follow = None,
) -> None:
    """Submit a training job and show it until it ends: 0 if it succeeded, 1 if not.

    Ctrl-C stops the showing, not the job.
    """
    with _reported():
        _check(model=model, detach=detach, follow=follow)
        from gateway.cli.job_addresses import job_addresses

        addresses = job_addresses(redis, queue_redis)
        job_id = follow
        if job_id is None:
            job_id = _submit(addresses, model=model or "", recipe=recipe, tenant=tenant)
        again = look_again(job_id, redis=redis)
        if detach:
            print(f"Submitted. To look at it: {again}", file=sys.stderr)
            print(job_id)
            return
        try:
            job = asyncio.run(_shown(addresses, job_id))
        except KeyboardInterrupt:
            print(f"\njob {job_id} goes on. To look at it again: {again}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
    _end(job)


def look_again(job_id: str, *, redis: str | None) -> str:
    """The command that shows the job; an address with a password in it is not repeated."""
    where = "" if redis is None else f" --redis {'URL' if '@' in redis else redis}"
    return f"friendo train --follow {job_id}{where}"


def _check(*, model: str | None, detach: bool, follow: str | None) -> None:
    from gateway.errors import BadOption

    if (model is None) == (follow is None):
        raise BadOption("give --model NAME to submit a job, or --follow JOB_ID to look at one")
    if detach and follow is not None:
        raise BadOption("--follow waits and --detach does not; leave one of them out")


def _submit(addresses: "JobAddresses", *, model: str, recipe: str, tenant: str) -> str:
    from training.job import new_job

    job_id = f"ftjob-{secrets.token_hex(12)}"
    job = new_job(job_id=job_id, tenant=tenant, model=model, recipe=recipe, now=time.time())
    asyncio.run(_dispatched(addresses, job))
    return job_id


async def _dispatched(addresses: "JobAddresses", job: "Job") -> None:
    from training.dispatch import dispatch
    from training.redis_jobs import RedisJobs
    from training.redis_queue import RedisQueue

    async with _client(addresses.records) as records, _client(addresses.queue) as ids:
        await dispatch(job, store=RedisJobs(records), queue=RedisQueue(ids), now=job.created_at)


async def _shown(addresses: "JobAddresses", job_id: str) -> "Job":
    from rich.console import Console

    from gateway.cli.train_follow import Screen, follow
    from training.redis_jobs import RedisJobs

    async with _client(addresses.records) as client:
        with Screen(Console()) as screen:
            return await follow(job_id, store=RedisJobs(client), screen=screen, clock=time.time)


def _client(url: str) -> "Redis":
    from redis.asyncio import Redis

    return Redis.from_url(url, socket_timeout=_ANSWER_WITHIN_S, socket_connect_timeout=_ANSWER_WITHIN_S)


def _end(job: "Job") -> None:
    from gateway.cli.train_follow import verdict
    from training.job import Status

    if job.status is Status.SUCCEEDED:
        print(verdict(job))
        return
    print(verdict(job), file=sys.stderr)
    raise typer.Exit(FAILED)


@contextmanager
def _reported() -> Iterator[None]:
    """What goes wrong on purpose is told in its own words, without a traceback."""
    from gateway.errors import GatewayError
    from training.errors import TrainingError

    try:
        yield
    except (GatewayError, TrainingError) as error:
        print(f"friendo train: {error}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
