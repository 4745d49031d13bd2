"""`friendo worker`: the training worker, told by the settings where the store is."""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer


def worker(
    redis: Annotated[
        str | None, typer.Option(metavar="URL", help="Redis with the job records.", show_default="store.url")
    ] = None,
    queue_redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Redis with the queue.", show_default="another database of the same server"
        ),
    ] = None,
    llamafactory: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Its environment.", show_default="as `make llamafactory` makes it"),
    ] = None,
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

    at = () if llamafactory is None else ("--llamafactory", str(llamafactory))
    main(["--redis", addresses.records, "--queue-redis", addresses.queue, *at])
