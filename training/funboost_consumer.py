"""How messages are taken from the stream, where that differs from funboost's own way.

The reader runs a job in its own thread and reads on when it has ended, so that no job waits behind a long
one while another worker is idle. Messages that a dead worker left, which funboost finds in a second thread
and would run beside the reader's, go back into the stream for whoever is idle. A message is acknowledged
when its job's run has returned and not before, and then until Redis has heard it: with a worker that lives,
a pending message is never delivered again.
"""

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0


class Gate:
    """Lets one job at a time through to `run`, until it is closed."""

    def __init__(self, run: Callable[[str], None]) -> None:
        self._run = run
        self.passing = threading.Lock()
        self.closed = threading.Event()
        self.finished = False

    def run(self, job_id: str) -> None:
        """Run the job; afterwards `finished` tells whether that returned."""
        self.finished = False
        self._run(job_id)
        self.finished = True

    def close(self, *, within_s: float) -> bool:
        """Let nothing more through. False if a job is still at hand after `within_s`."""
        self.closed.set()
        free = self.passing.acquire(timeout=within_s)
        if free:
            self.passing.release()
        return free


def job_id_of(body: str) -> str | None:
    """The id in a message, or None if the message is none of ours.

    Whatever else it holds is left out: funboost would take orders from it, unpickling among them.
    """
    try:
        content = json.loads(body)
    except ValueError:
        return None
    job_id = content.get("job_id") if isinstance(content, dict) else None
    return job_id if isinstance(job_id, str) else None


if TYPE_CHECKING:
    Consumer = Any
else:
    Consumer = object


class OneJobAtATime(Consumer):  # type: ignore[misc]  # funboost has no types and puts its consumer behind this class
    """Mixed in before funboost's Redis Streams consumer; `gate` and `redis_error` are set on a subclass."""

    gate: Gate
    redis_error: type[Exception]

    def custom_init(self) -> None:
        """Called by funboost in its constructor. Its own name for a worker is not unique among containers."""
        super().custom_init()
        self.consumer_identification = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex}"
        self._reader: int | None = None
        self._delay_s = FIRST_DELAY_S

    def _dispatch_task(self) -> None:
        """Read until Redis fails; funboost calls this again a second after it returns."""
        self._reader = threading.get_ident()
        if self.gate.closed.is_set():
            return
        try:
            super()._dispatch_task()
        except self.redis_error as error:
            self._wait_for_redis(error)

    def _submit_task(self, kw: dict[str, Any]) -> None:
        if threading.get_ident() != self._reader:
            self._give_back(kw)
            return
        self._delay_s = FIRST_DELAY_S
        with self.gate.passing:
            if self.gate.closed.is_set():
                self._give_back(kw)
                return
            job_id = job_id_of(kw["body"])
            if job_id is None:
                log.error("message %s in the queue holds no job id; dropped", kw["msg_id"])
                super()._confirm_consume(kw)
                return
            super()._submit_task({"body": {"job_id": job_id}, "msg_id": kw["msg_id"]})

    def _confirm_consume(self, kw: dict[str, Any]) -> None:
        """Called by funboost after every run, whether it returned or raised."""
        while self.gate.finished:
            try:
                super()._confirm_consume(kw)
            except self.redis_error as error:
                self._wait_for_redis(error)
            else:
                return

    def _give_back(self, kw: dict[str, Any]) -> None:
        """To the end of the stream, in one transaction."""
        with self.redis_db_frame.pipeline() as transaction:
            transaction.xadd(self._queue_name, {"": kw["body"]})
            transaction.xack(self._queue_name, self.group, kw["msg_id"])
            transaction.xdel(self._queue_name, kw["msg_id"])
            transaction.execute()

    def _wait_for_redis(self, error: Exception) -> None:
        log.warning("the queue does not answer (%s); trying again in %.1f s", error, self._delay_s)
        self.gate.closed.wait(self._delay_s)
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
