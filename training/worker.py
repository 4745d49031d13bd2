"""The worker process: takes job ids from the queue, one at a time, and works on their records.

    python -m training.worker --redis redis://127.0.0.1:6379/0 [--queue-redis URL] [--llamafactory DIR]

It prints one line of JSON when it takes jobs, logs to standard error, and ends on SIGTERM or SIGINT. While
Redis is away it waits and tries again. The event loop has the main thread; funboost reads the queue in a
thread of its own and waits there for each job, which runs on the loop.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from training.errors import StoreUnavailable
from training.funboost_queue import FunboostQueue
from training.llamafactory import LlamaFactory, default_folder
from training.ports import JobStore, Trainer
from training.redis_jobs import RedisJobs
from training.redis_queue import QUEUE, queue_address
from training.retrain import run_job

log = logging.getLogger("training.worker")

REDIS_VARIABLE = "FRIENDO_REDIS_URL"
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
GRACE_S = 1.5


@dataclass(frozen=True, slots=True)
class Settings:
    """What the worker is told: where the records and the queue are, and where LLaMA-Factory is."""

    redis: str
    queue_redis: str
    llamafactory: Path
    llamafactory_installed_in: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the worker, then end the process: 0 after a signal, 1 after an error, 2 for a wrong argument."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    settings = settings_from(sys.argv[1:] if arguments is None else arguments, os.environ, Path.home())
    status = 0
    try:
        asyncio.run(serve(settings))
    except Exception:
        log.exception("the worker ends")
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # funboost's threads loop for ever, and so does what it has registered for a normal exit


def settings_from(arguments: Sequence[str], environment: Mapping[str, str], home: Path) -> Settings:
    """Read the command line; a wrong one ends the process and says why."""
    installed_in = default_folder(environment, home)
    parser = argparse.ArgumentParser(prog="python -m training.worker", description="The training worker.")
    option = parser.add_argument
    option("--redis", metavar="URL", help=f"the job records; default: ${REDIS_VARIABLE}")
    option("--queue-redis", metavar="URL", help="the queue; default: another database of the same server")
    option("--llamafactory", metavar="DIR", type=Path, help=f"its environment; default: {installed_in}")
    given = parser.parse_args(arguments)
    records, apart = given.redis or environment.get(REDIS_VARIABLE), given.queue_redis
    if not records:
        parser.error(f"give --redis URL, or set {REDIS_VARIABLE}, which keeps passwords off the command line")
    try:
        queue = queue_address(apart, database=None) if apart else queue_address(records)
    except ValueError as error:
        parser.error(str(error))
    return Settings(records, queue, given.llamafactory or installed_in, installed_in)


async def serve(settings: Settings) -> None:
    """Take jobs until a signal says otherwise."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    trainer = LlamaFactory(settings.llamafactory, installed_in=settings.llamafactory_installed_in)
    async with aclosing(_client(settings.redis)) as records, aclosing(_client(settings.queue_redis)) as ids:
        if not (await _answers(records, stop) and await _answers(ids, stop)):
            return
        store = RedisJobs(records)

        def run(job_id: str) -> None:
            asyncio.run_coroutine_threadsafe(_work(job_id, store, trainer), loop).result()

        queue = await asyncio.to_thread(FunboostQueue, settings.queue_redis, run)
        await asyncio.to_thread(queue.start)
        ready = {"ready": True, "pid": os.getpid(), "queue": QUEUE, "llamafactory": trainer.cli() is not None}
        print(json.dumps(ready), flush=True)
        await stop.wait()
        if not await asyncio.to_thread(queue.stop, within_s=GRACE_S):
            log.warning("ending with a job at hand; another worker will take it up")


async def _work(job_id: str, store: JobStore, trainer: Trainer) -> None:
    delay_s = FIRST_DELAY_S
    while True:
        try:
            await run_job(job_id, store=store, trainer=trainer, clock=time.time)
        except StoreUnavailable as error:
            log.warning("%s; trying again in %.1f s", error, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        else:
            return


async def _answers(client: "redis.asyncio.Redis", stop: asyncio.Event) -> bool:
    """Wait until Redis answers. False if the worker is to stop first."""
    delay_s = FIRST_DELAY_S
    while not stop.is_set():
        try:
            await client.ping()
        except (RedisError, OSError) as error:
            log.warning("Redis does not answer (%s); trying again in %.1f s", error, delay_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        else:
            return True
    return False


def _client(url: str) -> "redis.asyncio.Redis":
    return redis.asyncio.Redis.from_url(
        url,
        retry=Retry(ExponentialBackoff(cap=2, base=0.1), 3),
        socket_connect_timeout=5,
        socket_timeout=10,
        health_check_interval=30,
    )


if __name__ == "__main__":
    main()
