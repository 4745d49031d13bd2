"""Every fault has its place in the table, and looks to an SDK like one of OpenAI's."""

import inspect
from types import ModuleType

import msgspec
import pytest

from gateway import errors as gateway_errors
from gateway.api.envelope import envelope
from gateway.errors import (
    BadRequest,
    BodyEncoded,
    Draining,
    EngineRefused,
    GatewayError,
    HeadStalled,
    HeadTooLarge,
    NodeBusy,
    NodeFault,
    NodesDown,
    NoSuchItem,
    OperatorFault,
    OutOfTime,
    TooLarge,
    UnknownModel,
)
from gateway.keys import errors as key_errors
from gateway.keys.errors import InvalidKey, NotAllowed
from history import errors as history_errors
from history.errors import (
    ConversationBusy,
    HistoryError,
    InvalidMessages,
    LeaseLost,
    StoreFault,
    StoreUnavailable,
)

ARGUMENTS: dict[str, tuple[object, ...]] = {
    "BodyStalled": (30.0,),
    "Draining": (),
    "HeadStalled": (20.0,),
    "HeadTooLarge": (5,),
    "OutOfTime": (600.0,),
    "TooLarge": (5,),
    "UnknownModel": ("m",),
    "InvalidKey": (),
}
KEYWORDS: dict[str, dict[str, object]] = {
    "EngineRefused": {"status": 422, "code": None, "param": None},
    "ConversationBusy": {"retry_after_ms": 5},
    "NoSuchItem": {"param": "item_id"},
}
AT_START = {"BadPepper", "KeyStoreUnavailable"}
"""Raised while a process starts or a command runs; the keyring keeps the second from requests."""


def leaves(module: ModuleType) -> list[type[Exception]]:
    """The errors of a module that have no child there and can reach a client."""
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, Exception)]
    return [
        kind
        for kind in kinds
        if kind.__module__ == module.__name__
        and not issubclass(kind, OperatorFault)
        and kind.__name__ not in AT_START
        and not any(kind in other.__bases__ for other in kinds)
    ]


@pytest.mark.parametrize(
    "kind", [kind for module in (gateway_errors, key_errors, history_errors) for kind in leaves(module)]
)
def test_every_fault_has_an_envelope_of_its_own(kind: type[Exception]) -> None:
    """None falls through to the one for bugs, which tells nothing."""
    name = kind.__name__
    shown = envelope(kind(*ARGUMENTS.get(name, ("what happened",)), **KEYWORDS.get(name, {})))

    assert shown.status in {400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 431, 501, 502, 503, 504}
    assert "its log has the details" not in shown.message
    assert {"message", "type", "param", "code"} == set(msgspec.json.decode(shown.json())["error"])


@pytest.mark.parametrize(
    ("error", "status", "code", "retries"),
    [
        (BadRequest("bad", param="n"), 400, None, False),
        (TooLarge(5), 413, "request_too_large", False),
        (BodyEncoded("gzip"), 415, "unsupported_content_encoding", False),
        (HeadTooLarge(5), 431, "request_header_too_large", False),
        (HeadStalled(20.0), 408, "request_timeout", True),
        (UnknownModel("m"), 404, "model_not_found", False),
        (NoSuchItem("no such item", param="item_id"), 404, "not_found", False),
        (EngineRefused("no", status=422, code="x", param=None), 422, "x", False),
        (InvalidKey(), 401, "invalid_api_key", False),
        (NotAllowed("the scope 'admin'"), 403, "permission_denied", False),
        (InvalidMessages("odd"), 400, None, False),
        (ConversationBusy("busy", retry_after_ms=250), 409, "conversation_busy", True),
        (LeaseLost(), 409, "conversation_busy", True),
        (NodesDown("away", retry_after_ms=2000), 503, "no_node_available", True),
        (NodeBusy("full", retry_after_ms=1500), 503, "server_is_overloaded", True),
        (NodeFault("boom"), 502, "node_failed", True),
        (OutOfTime(600.0), 504, "deadline_exceeded", False),
        (Draining(), 503, "shutting_down", True),
        (StoreUnavailable("gone"), 503, "store_unavailable", True),
        (StoreFault("a newer schema"), 503, "store_refused", False),
        (RuntimeError("a bug"), 500, None, False),
    ],
)
def test_fault_has_its_status_code_and_advice(
    error: Exception, status: int, code: str | None, *, retries: bool
) -> None:
    """The SDKs go by these three."""
    shown = envelope(error)
    assert (status, code, retries) == (shown.status, shown.code, shown.should_retry)
    assert dict(shown.headers())[b"x-should-retry"] == (b"true" if retries else b"false")


def test_store_that_refuses_does_not_show_its_words() -> None:
    """They are for the operator: hosts, versions, settings; and a store that answers is not called silent."""
    shown = envelope(StoreFault("OOM at host 10.0.0.7"))
    assert "10.0.0.7" not in shown.message
    assert "does not answer" not in shown.message


def test_delay_is_told_in_both_units() -> None:
    """Milliseconds exactly, seconds rounded up: never too early."""
    headers = dict(envelope(NodeBusy("full", retry_after_ms=1500)).headers())
    assert (b"1500", b"2") == (headers[b"retry-after-ms"], headers[b"retry-after"])
    assert b"retry-after-ms" not in dict(envelope(BadRequest("bad")).headers())


def test_bug_tells_nothing_of_the_inside() -> None:
    """Its text may hold what somebody said."""
    assert b"secret" not in envelope(RuntimeError("a secret")).json()


def test_event_is_one_event() -> None:
    """Line breaks in a message do not end it early."""
    event = envelope(BadRequest("a\n\nb")).event()
    assert (1, True) == (event.count(b"\n\n"), event.endswith(b"\n\n"))
    assert msgspec.json.decode(event[6:])["error"]["message"] == "a\n\nb"


def test_roots_are_covered_too() -> None:
    """A fault that somebody adds tomorrow is at least blamed on the right side."""
    assert envelope(GatewayError("x")).status == 500
    assert envelope(HistoryError("x")).status == 500
    assert envelope(type("Newer", (NodeFault,), {})("x")).status == 502
