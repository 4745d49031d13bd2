"""Taking messages from the stream, over a stand-in for funboost's consumer that does what its code does."""

import json
import threading
from typing import Any, Self

import pytest

from training.funboost_consumer import Gate, OneJobAtATime


class Away(Exception):
    """The stream's Redis does not answer."""


class Stream:
    """What the stand-in and a transaction do to the stream, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.fails = 0

    def pipeline(self) -> "Stream":
        """A transaction is the stream itself."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def xadd(self, _name: str, fields: dict[str, str]) -> None:
        """Record what is added."""
        self.done.append(("add", fields[""]))

    def xack(self, _name: str, _group: str, msg_id: str) -> None:
        """Record what is acknowledged, or fail."""
        if self.fails:
            self.fails -= 1
            raise Away
        self.done.append(("ack", msg_id))

    def xdel(self, _name: str, msg_id: str) -> None:
        """Deleting goes with acknowledging."""

    def execute(self) -> None:
        """Nothing is held back here."""


class Funboost:
    """The parts of funboost's consumer around the mixin, in the order in which it runs them."""

    _queue_name = "friendo_jobs"
    group = "friendo_workers"

    def __init__(self) -> None:
        self.redis_db_frame = Stream()
        self.messages: list[dict[str, Any]] = []
        self.custom_init()

    def custom_init(self) -> None:
        """Nothing to prepare."""

    def _dispatch_task(self) -> None:
        while self.messages:
            self._submit_task(self.messages.pop(0))

    def _submit_task(self, kw: dict[str, Any]) -> None:
        try:
            self.gate.run(kw["body"]["job_id"])  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - so does funboost, and acknowledges
            self.failed = True
        self._confirm_consume(kw)

    def _confirm_consume(self, kw: dict[str, Any]) -> None:
        self.redis_db_frame.xack(self._queue_name, self.group, kw["msg_id"])


class Ran:
    """A run that remembers its ids and raises for those that it is told to."""

    def __init__(self, *raises: str) -> None:
        self.ids: list[str] = []
        self.raises = raises

    def __call__(self, job_id: str) -> None:
        self.ids.append(job_id)
        if job_id in self.raises:
            raise RuntimeError("the run ended badly")


def a_consumer(ran: Ran) -> Any:
    """The mixin before the stand-in, as funboost composes it."""
    attributes = {"gate": Gate(ran), "redis_error": Away}
    return type("Consumer", (OneJobAtATime, Funboost), attributes)()


def a_message(n: int, body: str | None = None) -> dict[str, Any]:
    """The n-th message of the stream."""
    return {"body": body or json.dumps({"job_id": f"job-{n}"}), "msg_id": f"{n}-0"}


def test_a_message_is_acknowledged_after_its_run() -> None:
    """Each one, in order."""
    ran = Ran()
    consumer = a_consumer(ran)
    consumer.messages = [a_message(1), a_message(2)]

    consumer._dispatch_task()

    assert ran.ids == ["job-1", "job-2"]
    assert consumer.redis_db_frame.done == [("ack", "1-0"), ("ack", "2-0")]


def test_a_message_whose_run_raised_stays_and_the_next_is_taken() -> None:
    """It goes to another worker when this one ends; acknowledged, it would be lost."""
    ran = Ran("job-1")
    consumer = a_consumer(ran)
    consumer.messages = [a_message(1), a_message(2)]

    consumer._dispatch_task()

    assert ran.ids == ["job-1", "job-2"]
    assert consumer.redis_db_frame.done == [("ack", "2-0")]


def test_an_acknowledgement_is_repeated_until_redis_has_heard_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished job's message would otherwise stay with a worker that lives, for good."""
    monkeypatch.setattr("training.funboost_consumer.FIRST_DELAY_S", 0.001)
    consumer = a_consumer(Ran())
    consumer.redis_db_frame.fails = 3
    consumer.messages = [a_message(1)]

    consumer._dispatch_task()

    assert consumer.redis_db_frame.done == [("ack", "1-0")]


def test_a_message_without_an_id_is_dropped() -> None:
    """It would stay in the stream for ever, and be complained about at every start."""
    ran = Ran()
    consumer = a_consumer(ran)
    consumer.messages = [a_message(1, "nonsense"), a_message(2)]

    consumer._dispatch_task()

    assert ran.ids == ["job-2"]
    assert consumer.redis_db_frame.done == [("ack", "1-0"), ("ack", "2-0")]


def test_orders_to_funboost_in_a_message_are_left_out() -> None:
    """It would unpickle what it is told to."""
    ran = Ran()
    consumer = a_consumer(ran)
    taken: list[dict[str, Any]] = []
    consumer.gate.run = lambda job_id: taken.append({"job_id": job_id})
    orders = {"job_id": "job-1", "x": 1, "extra": {"can_not_json_serializable_keys": ["job_id"]}}
    consumer.messages = [a_message(1, json.dumps(orders))]

    consumer._dispatch_task()

    assert taken == [{"job_id": "job-1"}]


def test_a_dead_workers_message_goes_back_into_the_stream() -> None:
    """It is found in another thread, beside a job that may run here for hours."""
    ran = Ran()
    consumer = a_consumer(ran)
    left = a_message(1)

    finder = threading.Thread(target=consumer._submit_task, args=(left,))
    finder.start()
    finder.join()

    assert ran.ids == []
    assert consumer.redis_db_frame.done == [("add", left["body"]), ("ack", "1-0")]


def test_a_closed_consumer_gives_back_what_arrives() -> None:
    """A worker that is told to stop starts no job."""
    ran = Ran()
    consumer = a_consumer(ran)
    consumer._dispatch_task()
    closed = consumer.gate.close(within_s=1)

    consumer._submit_task(a_message(1))

    assert closed
    assert ran.ids == []
    assert [what for what, _ in consumer.redis_db_frame.done] == ["add", "ack"]


def test_closing_waits_for_the_job_at_hand_and_tells_if_it_was_too_long() -> None:
    """Both answers."""
    gate = Gate(lambda _: None)
    with gate.passing:
        too_long = gate.close(within_s=0.01)

    assert (too_long, gate.close(within_s=0.01)) == (False, True)


def test_an_outage_is_waited_out_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits double up to a bound, and start anew once a message has come."""
    consumer = a_consumer(Ran())
    waits: list[float] = []
    monkeypatch.setattr(consumer.gate.closed, "wait", waits.append)

    def fail(_: object) -> None:
        raise Away

    monkeypatch.setattr(Funboost, "_dispatch_task", fail)
    for _ in range(7):
        consumer._dispatch_task()
    consumer._submit_task(a_message(1))
    consumer._dispatch_task()

    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 0.5]
