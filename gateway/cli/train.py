"""`friendo train`: submits a training job and shows what becomes of it; or shows, or changes, an earlier one.

The job goes on whether anybody looks or not. Its id goes to standard output alone with --detach, so that a
script can take it.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gateway.cli.job_addresses import JobAddresses
    from gateway.cli.train_order import Order
    from training.job import Job

FAILED = 1
INTERRUPTED = 130

_Model = Annotated[str | None, typer.Option(metavar="NAME", help="The model to train.")]
_File = Annotated[
    Path | None, typer.Option(metavar="PATH", help="What to train on; it is copied into training.folder.")
]
_Dataset = Annotated[str, typer.Option(metavar="ID", help="What to train on: a dataset of training.folder.")]
_Recipe = Annotated[str, typer.Option(metavar="NAME", help="How to train.", show_default="training.recipe")]
_Suffix = Annotated[str, typer.Option(metavar="TEXT", help="Of the trained model's name.")]
_Seed = Annotated[int | None, typer.Option(help="The same gives the same again.", show_default="made up")]
_Epochs = Annotated[
    float | None, typer.Option(help="How often everything is gone through.", show_default="the recipe's")
]
_Tenant = Annotated[str, typer.Option(help="Whose job it is.")]
_Redis = Annotated[
    str | None, typer.Option(metavar="URL", help="Redis with the job records.", show_default="store.url")
]
_QueueRedis = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Redis with the queue.", show_default="training.queue_url"),
]
_Detach = Annotated[bool, typer.Option("--detach", help="Print the job's id and do not wait.")]
_Follow = Annotated[str, typer.Option("--follow", metavar="JOB_ID", help="Submit nothing; show this job.")]
_Cancel = Annotated[str, typer.Option("--cancel", metavar="JOB_ID", help="Submit nothing; end this job.")]
_Pause = Annotated[
    str, typer.Option("--pause", metavar="JOB_ID", help="Submit nothing; stop this job for now.")
]
_Resume = Annotated[
    str, typer.Option("--resume", metavar="JOB_ID", help="Submit nothing; let this job go on.")
]


def train(  # noqa: PLR0913, PLR0917 - each is an option of the command
    model: _Model = None,
    file: _File = None,
    dataset: _Dataset = "",
    recipe: _Recipe = "",
    suffix: _Suffix = "",
    seed: _Seed = None,
    epochs: _Epochs = None,
    tenant: _Tenant = "default",
    redis: _Redis = None,
    queue_redis: _QueueRedis = None,
    detach: _Detach = False,  # noqa: FBT002 - a flag
    follow: _Follow = "",
    cancel: _Cancel = "",
    pause: _Pause = "",
    resume: _Resume = "",
) -> None:
    """Submit a training job and show it until it ends: 0 if it succeeded, 1 if not.

    Ctrl-C stops the showing, not the job.
    """
    with _reported():
        sources, earlier = [str(file or ""), dataset], [follow, cancel, pause, resume]
        _check(model=model or "", detach=detach, sources=sources, earlier=earlier)
        from gateway.cli.job_addresses import job_addresses

        addresses = job_addresses(redis, queue_redis)
        if cancel or pause or resume:
            _change(addresses, cancel=cancel, pause=pause, resume=resume)
            return
        job_id = follow
        if not follow:
            from gateway.cli.train_order import Order

            order = Order(tenant, model or "", file, dataset, recipe, suffix, seed, epochs)
            job_id = _submit(addresses, order)
        _show(addresses, job_id, look_again(job_id, redis=redis), detach=detach)


def _show(addresses: "JobAddresses", job_id: str, again: str, *, detach: bool) -> None:
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


def _check(*, model: str, detach: bool, sources: list[str], earlier: list[str]) -> None:
    from gateway.errors import BadOption

    named = sum(map(bool, earlier))
    if bool(model) + named != 1:
        raise BadOption(
            "give --model NAME to submit a job, or --follow JOB_ID to look at one, or one of --cancel, "
            "--pause, --resume"
        )
    if model and sum(map(bool, sources)) != 1:
        raise BadOption("give what to train on: --file PATH, or --dataset ID")
    if detach and named:
        raise BadOption("--follow waits and --detach does not; leave one of them out")


def _submit(addresses: "JobAddresses", order: "Order") -> str:
    from gateway.cli.settings_file import read_settings
    from gateway.cli.train_order import submit

    return asyncio.run(submit(addresses, read_settings(None, os.environ).training, order)).id


def _change(addresses: "JobAddresses", *, cancel: str, pause: str, resume: str) -> None:
    from gateway.cli.settings_file import read_settings
    from gateway.cli.train_follow import verdict
    from gateway.cli.train_order import change
    from training.job import Change

    wanted = Change.CANCEL if cancel else Change.PAUSE if pause else Change.RESUME
    training = read_settings(None, os.environ).training
    print(verdict(asyncio.run(change(addresses, training, cancel or pause or resume, wanted))))


async def _shown(addresses: "JobAddresses", job_id: str) -> "Job":
    from rich.console import Console

    from gateway.cli.train_follow import Screen, follow
    from gateway.cli.train_order import client
    from training.redis_jobs import RedisJobs

    async with client(addresses.records) as records:
        with Screen(Console()) as screen:
            return await follow(job_id, store=RedisJobs(records), screen=screen, clock=time.time)


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
