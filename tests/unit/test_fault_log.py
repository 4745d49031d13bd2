"""The log of the store's faults: why, once a minute and in a few lines; never what a client sent."""

import pytest
import structlog
from structlog.testing import capture_logs

from gateway.fault_log import FaultLog, without_quotes
from history.errors import StoreFault, StoreUnavailable

UNKNOWN_COMMAND = "ERR unknown command 'EVALSHA', with args beginning with: 'sha' '5' 'friendo:{t:secret}'"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> FaultLog:
    """A log of its own, over a logger that was not bound before."""
    monkeypatch.setattr("gateway.fault_log.log", structlog.get_logger())
    return FaultLog()


def test_same_fault_is_logged_once_a_minute(faults: FaultLog) -> None:
    """A hundred requests fail for one reason; the next minute says it again, and how many there were."""
    with capture_logs() as logs:
        for second in range(100):
            faults.note(StoreUnavailable("no route"), now=second)

    assert ["no route", 59, "no route"] == [entry.get("text", entry.get("left_out")) for entry in logs]


def test_kinds_are_logged_apart(faults: FaultLog) -> None:
    """One that does not answer, one that refuses, and two reasons to refuse."""
    with capture_logs() as logs:
        for fault in (StoreUnavailable("gone"), StoreFault("gone"), StoreFault("OOM"), StoreFault("OOM")):
            faults.note(fault, now=0.0)

    assert [("StoreUnavailable", "gone"), ("StoreFault", "gone"), ("StoreFault", "OOM")] == [
        (entry["fault"], entry["text"]) for entry in logs
    ]


def test_ever_new_texts_do_not_fill_the_log(faults: FaultLog) -> None:
    """A text with a number in it is another one each time."""
    with capture_logs() as logs:
        for number in range(1000):
            faults.note(StoreFault(f"version {number}"), now=0.0)

    assert 8 == len(logs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UNKNOWN_COMMAND, "ERR unknown command '…'"),
        ("Invalid enum value 'it's a secret' - at `$[4]`", "Invalid enum value '…' - at `$[4]`"),
        ('he said "secret" and "more', "he said '…'more"),
        ("WRONGTYPE Operation against a key", "WRONGTYPE Operation against a key"),
        ("with args beginning with: secret", "…"),
    ],
)  # fmt: skip
def test_what_a_server_quotes_is_left_out(text: str, expected: str) -> None:
    """It may be an argument, and so an id that a client chose."""
    assert expected == without_quotes(text).replace(", …", "")
    assert "secret" not in without_quotes(text)


def test_text_is_bounded() -> None:
    """Whatever a server has to say."""
    assert 300 == len(without_quotes("x" * 10_000))
