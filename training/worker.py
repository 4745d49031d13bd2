"""The worker process: takes job ids from the queue, one at a time, and works on their records.

    python -m training.worker --redis redis://127.0.0.1:6379/0 [--queue-redis URL] [--llamafactory DIR]
                              [--folder DIR] [--gpus 0,1|cpu] [--models NAME=PATH]...

It prints one line of JSON when it takes jobs, logs to standard error, and ends on SIGTERM or SIGINT. While
Redis is away it waits and tries again. The event loop has the main thread; funboost reads the queue in a
thread of its own and waits there for each job, which runs on the loop.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from training.errors import StoreUnavailable
from training.funboost_queue import FunboostQueue
from training.llamafactory import LlamaFactory
from training.redis_queue import QUEUE
from training.retrain import run_job
from training.trainer.equipment import Equip, equipped
from training.trainer.options import Settings, settings_from
from training.trainer.workshop import Workshop

log = logging.getLogger("training.worker")

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
GRACE_S = 1.5


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


async def serve(settings: Settings, *, equip: Equip = equipped) -> None:
    """Take jobs until a signal says otherwise. `equip` puts the workshop together."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    trainer = LlamaFactory(settings.llamafactory, installed_in=settings.llamafactory_installed_in)
    async with aclosing(_client(settings.redis)) as records, aclosing(_client(settings.queue_redis)) as ids:
        if not (await _answers(records, stop) and await _answers(ids, stop)):
            return
        shop = equip(settings, records, trainer)

        def run(job_id: str) -> None:
            asyncio.run_coroutine_threadsafe(_work(job_id, shop), loop).result()

        queue = await asyncio.to_thread(FunboostQueue, settings.queue_redis, run)
        await asyncio.to_thread(queue.start)
        ready = {"ready": True, "pid": os.getpid(), "queue": QUEUE, "llamafactory": trainer.cli() is not None}
        print(json.dumps(ready), flush=True)
        await stop.wait()
        if not await asyncio.to_thread(queue.stop, within_s=GRACE_S):
            log.warning("ending with a job at hand; another worker will take it up")


async def _work(job_id: str, shop: Workshop) -> None:
    delay_s = FIRST_DELAY_S
    while True:
        try:
            await run_job(job_id, shop=shop)
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
