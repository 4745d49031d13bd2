"""Where training jobs are recorded and queued: the same answer for the worker and for who submits."""

import os
from dataclasses import dataclass

from gateway.cli.settings_file import checked, read_settings
from gateway.config_file.forms import redis_address
from gateway.errors import BadOption
from training.redis_queue import queue_address


@dataclass(frozen=True, slots=True)
class JobAddresses:
    """Two Redis addresses; the second names host, port and database and nothing else."""

    records: str
    queue: str


def job_addresses(redis: str | None, queue_redis: str | None) -> JobAddresses:
    """As the options say, or as the settings do where they say nothing.

    Raises BadOption, or what the configuration file's reader raises.
    """
    for option, given in (("--redis", redis), ("--queue-redis", queue_redis)):
        if given is not None:
            checked(option, redis_address, given)
    records = redis or ""
    if not records:
        settings = read_settings(None, os.environ)
        records, queue_redis = settings.store.url, queue_redis or settings.training.queue_url or None
    try:
        queue = queue_address(queue_redis, database=None) if queue_redis else queue_address(records)
    except ValueError as error:
        raise BadOption(
            f"{error}; give the job records with --redis, the queue with --queue-redis or training.queue_url"
        ) from error
    return JobAddresses(records, queue)
