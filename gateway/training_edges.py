"""Composition: the edges of training as the gateway's settings name them. The worker has its own."""

import contextlib
import time
from pathlib import Path

import structlog
from redis.asyncio import Redis, RedisCluster

from gateway.fine_tuning import Training, TrainingJobs
from gateway.settings import Settings
from history.redis_client import redis_client
from history.redis_place import parse_place
from training.disk_files import DiskFiles
from training.redis_jobs import RedisJobs
from training.redis_queue import RedisQueue, queue_address

NO_FOLDER = "training.folder is not set: name a folder there that gateway and workers share"

log = structlog.get_logger()


async def open_training(
    settings: Settings, client: Redis | RedisCluster | None, stack: contextlib.AsyncExitStack
) -> Training:
    """What of training the settings ask for. `client`: of the store, None where that is memory."""
    rule = settings.training
    folder = Path(rule.folder)
    if not rule.folder:
        return Training(None, None, NO_FOLDER, rule.recipe, rule.max_file_bytes)
    files = DiskFiles(folder / "files", max_bytes=rule.max_file_bytes, max_files=rule.max_files)
    try:
        address = rule.queue_url or queue_address(settings.store.url)
    except ValueError:
        address = ""
    why = _missing(has_store=client is not None, has_queue=bool(address))
    if client is None or why:
        log.warning("no training jobs", reason=why)
        return Training(files, None, why, rule.recipe, rule.max_file_bytes)
    timeout_s = settings.store.timeout_s
    place = parse_place(address, password="" if rule.queue_url else settings.store.password)
    queue = await stack.enter_async_context(redis_client(place, timeout_s=timeout_s))
    jobs = TrainingJobs(RedisJobs(client), RedisQueue(queue), files, folder / "datasets", time.time)
    return Training(files, jobs, "", rule.recipe, rule.max_file_bytes)


def _missing(*, has_store: bool, has_queue: bool) -> str:
    if not has_store:
        return "training jobs are kept in Redis: set store.url to one, not to memory"
    if not has_queue:
        return (
            "the queue of training jobs needs one Redis server of its own beside a cluster or sentinels: "
            "set training.queue_url to redis://HOST:PORT/DATABASE"
        )
    return ""
