"""`friendo worker`: the training worker, told by the settings where the store is."""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

Redis = Annotated[
    str | None, typer.Option(metavar="URL", help="Redis with the job records.", show_default="store.url")
]
QueueRedis = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Redis with the queue.", show_default="another database of the same server"
    ),
]
Environment = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Its environment.", show_default="as `make llamafactory` makes it"),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="training.folder, which gateway and workers share.",
        envvar="FRIENDO_TRAINING_FOLDER",
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(metavar="0,1|cpu", help="What one training takes.", show_default="every GPU, else cpu"),
]
Models = Annotated[
    list[str] | None, typer.Option(metavar="NAME=PATH", help="A base model's folder; may be repeated.")
]


def worker(
    redis: Redis = None,
    queue_redis: QueueRedis = None,
    llamafactory: Environment = None,
    folder: Folder = None,
    gpus: Gpus = None,
    models: Models = None,
) -> None:
    """Take training jobs from the queue, one at a time, until told to stop."""
    from gateway.cli.job_addresses import job_addresses
    from gateway.errors import GatewayError, OperatorFault

    try:
        if importlib.util.find_spec("funboost") is None:
            raise OperatorFault("the worker needs the package funboost: pip install 'friendo[worker]'")
        addresses = job_addresses(redis, queue_redis)
    except GatewayError as error:
        print(f"friendo worker: {error}", file=sys.stderr)
        raise typer.Exit(1) from None

    from training.worker import main

    given = {"--llamafactory": llamafactory, "--folder": folder, "--gpus": gpus}
    at = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    named = [word for model in models or () for word in ("--models", model)]
    main(["--redis", addresses.records, "--queue-redis", addresses.queue, *at, *named])
