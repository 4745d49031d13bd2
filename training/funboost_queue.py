"""The queue of job ids as the worker sees it: funboost over Redis Streams. No other file imports funboost.

It is imported when a FunboostQueue is built, inside `contained`. Its settings, where they are not its own:
one job at a time, one message per read, no retry (a failed job stays failed, and the job record counts
deliveries), and no remote kill, which hangs the worker on the first exception.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.containment import contained, silent
from training.funboost_consumer import Gate, OneJobAtATime
from training.redis_queue import QUEUE

log = logging.getLogger(__name__)

SETTINGS = Path(__file__).with_name("funboost_settings")
GROUP = "friendo_workers"
# A read waits in Redis for 60 s: a connection that is silent for longer is dead, and nobody would notice.
SOCKET_TIMEOUT_S = 75.0


class FunboostQueue:
    """The queue at `redis_url`, consumed by this process; one per process, since funboost keeps it for good.

    `run` is called in the reading thread with one job's id at a time. It returns when the job is done with;
    if it raises, the message stays with this process until that ends, and goes to another worker then.
    Redis must answer while it is built.
    """

    def __init__(self, redis_url: str, run: Callable[[str], None]) -> None:
        self._gate = Gate(run)
        funboost = _imported(redis_url)
        with silent():
            self._booster = _booster(funboost, self._gate)
        self._redis = self._booster.consumer.redis_db_frame
        self._redis_module = funboost.utils.redis_manager.redis5
        self._hand_over_logs()
        self._bound_waiting()

    def push(self, job_id: str) -> None:
        """Publish through funboost. The gateway does the same without it, through RedisQueue."""
        self._booster.push(job_id=job_id)

    def start(self) -> None:
        """Begin to read, in threads that end only with the process."""
        try:
            self._redis.xgroup_create(QUEUE, GROUP, id=0, mkstream=True)
        except self._redis_module.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._booster.consume()

    def stop(self, *, within_s: float) -> bool:
        """Take no further job and wait for the one at hand; False if it is still at hand after `within_s`.

        The threads stay: the process has to end by os._exit.
        """
        return self._gate.close(within_s=within_s)

    def _hand_over_logs(self) -> None:
        """The loggers of funboost stand outside the tree of loggers: hang them in, below this file's."""
        for logger in (self._booster.consumer.logger, self._booster.publisher.logger):
            logger.parent = log
            logger.addFilter(self._is_news)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """An outage of Redis is told by the reader; every other thread would add its traceback to that."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, self._redis_module.RedisError)

    def _bound_waiting(self) -> None:
        """There are settings for this in funboost, but it does not hand them on to its client."""
        pool = self._redis.connection_pool
        pool.connection_kwargs.update(socket_timeout=SOCKET_TIMEOUT_S, socket_keepalive=True)
        pool.disconnect()
        pool.reset()


def _imported(redis_url: str) -> Any:
    environment = {"FRIENDO_FUNBOOST_REDIS": redis_url}
    with contained(SETTINGS, environment, logs_variable="FRIENDO_FUNBOOST_LOGS"):
        import funboost  # noqa: PLC0415 - it reads its settings and changes the process while it is imported
    # Loggers that it makes later would get handlers of their own again: files, and standard output.
    funboost.nb_log.LogManager._LogManager__add_handlers = lambda _: None  # noqa: SLF001 - there is no switch
    return funboost


def _booster(funboost: Any, gate: Gate) -> Any:
    redis_error = funboost.utils.redis_manager.redis5.RedisError
    consumer = type("Consumer", (OneJobAtATime,), {"gate": gate, "redis_error": redis_error})
    parameters = funboost.BoosterParams(
        queue_name=QUEUE,
        broker_kind=funboost.BrokerEnum.REDIS_STREAM,
        broker_exclusive_config={"group": GROUP, "pull_msg_batch_size": 1},
        concurrent_mode=funboost.ConcurrentModeEnum.SINGLE_THREAD,
        concurrent_num=1,
        max_retry_times=0,
        is_support_remote_kill_task=False,
        create_logger_file=False,
        log_level=logging.ERROR,
        consumer_override_cls=consumer,
    )

    def train_job(job_id: str) -> None:
        gate.run(job_id)

    return funboost.boost(parameters)(train_job)
