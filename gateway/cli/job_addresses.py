"""Where training jobs are recorded and queued: the same answer for the worker and for who submits."""

import os
from dataclasses import dataclass

from gateway.config_file import config_path, load_path
from gateway.errors import BadOption
from gateway.settings import Settings
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
    records = redis or load_path(Settings, config_path(os.environ), os.environ).store.url
    try:
        queue = queue_address(queue_redis, database=None) if queue_redis else queue_address(records)
    except ValueError as error:
        raise BadOption(
            f"{error}; give the job records with --redis, the queue with --queue-redis"
        ) from error
    return JobAddresses(records, queue)
