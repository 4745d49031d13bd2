"""The queue's address and message, and that nobody pays for funboost who only pushes."""

import json
import subprocess
import sys

import pytest

from training.funboost_consumer import job_id_of
from training.redis_queue import message, queue_address


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/7"),
        ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379/7"),
        ("redis://localhost", "redis://localhost:6379/7"),
        ("rediss://user:p%40ss@example.org:7000/3", "rediss://user:p%40ss@example.org:7000/7"),
        ("redis://:pw@[::1]:6380/0?health_check_interval=2", "redis://:pw@[::1]:6380/7"),
    ],
)
def test_the_queue_has_a_database_of_its_own_on_the_same_server(records: str, expected: str) -> None:
    """Everything but the database stays."""
    assert expected == queue_address(records)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("redis://queue:1234/5", "redis://queue:1234/5"),
        ("redis://queue", "redis://queue:6379/0"),
    ],
)
def test_a_queue_with_a_redis_of_its_own_keeps_the_database_it_was_given(given: str, expected: str) -> None:
    """Beside a cluster the queue is where the operator says."""
    assert expected == queue_address(given, database=None)


@pytest.mark.parametrize("address", ["unix:///run/redis.sock", "localhost:6379", "http://x", "redis://h/a"])
def test_an_address_that_the_queue_cannot_reach_is_refused(address: str) -> None:
    """Better than a worker that waits for a job that never comes."""
    with pytest.raises(ValueError, match=r"redis://|number"):
        queue_address(address, database=None)


def test_a_message_is_read_back_as_its_id() -> None:
    """The two ends of the queue agree."""
    assert job_id_of(message("job-1", now=1732420000.98765).decode()) == "job-1"


def test_a_message_carries_the_id_and_what_funboost_adds_to_it() -> None:
    """Nothing of the job itself travels."""
    expected = {
        "job_id": "job-1",
        "extra": {
            "task_id": "job-1",
            "publish_time": 1732420000.5,
            "publish_time_format": "2024-11-24 03:46:40",
        },
    }

    assert expected == json.loads(message("job-1", now=1732420000.5))


@pytest.mark.parametrize("body", ["", "nonsense", "[]", "7", "null", "{}", '{"job_id": 7}', '"job-1"', "{"])
def test_what_is_no_message_has_no_id(body: str) -> None:
    """Anybody who reaches the Redis can write into the stream."""
    assert job_id_of(body) is None


@pytest.mark.parametrize(
    "module", ["training", "training.dispatch", "training.redis_queue", "training.redis_jobs"]
)
def test_who_only_pushes_does_not_import_funboost(module: str) -> None:
    """It would cost the gateway nine hundred modules."""
    program = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('funboost', 'nb_log')))"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
