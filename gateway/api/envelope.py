"""How each fault looks to an OpenAI client: one table from exception to status, type, code and advice.

The SDKs retry 408, 409, 429 and 5xx unless `x-should-retry` says no, and wait `retry-after-ms`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway import errors as gateway
from gateway.keys import errors as keys
from gateway.nodes import errors as nodes
from gateway.rollout import errors as rollouts
from history import errors as history
from training import errors as training

_REQUEST = "invalid_request_error"
_SERVER = "server_error"
_CONFLICT = "conflict_error"


class Envelope(msgspec.Struct, frozen=True):
    """An error as it goes over the wire."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    should_retry: bool = False
    retry_after_ms: int | None = None

    def json(self) -> bytes:
        """OpenAI's error object, all four fields always there."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return msgspec.json.encode({"error": error})

    def event(self) -> bytes:
        """The same as a server-sent event, for a stream that has begun."""
        return b"data: %b\n\n" % self.json()

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What tells an SDK whether and when to come back."""
        advice = [(b"x-should-retry", b"true" if self.should_retry else b"false")]
        if self.retry_after_ms is not None:
            seconds = max(1, -(-self.retry_after_ms // 1000))
            advice.append((b"retry-after-ms", b"%d" % self.retry_after_ms))
            advice.append((b"retry-after", b"%d" % seconds))
        return tuple(advice)

    def response_headers(self, request_id: str) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of a response that is this error and nothing else."""
        return (
            (b"content-type", b"application/json"),
            (b"x-request-id", request_id.encode()),
            *self.headers(),
        )


def envelope(error: Exception) -> Envelope:
    """The envelope for a fault; anything unforeseen is a 500 that tells nothing of the inside."""
    for kind in type(error).__mro__:
        if kind in _TABLE:
            return _TABLE[kind](error)
    return Envelope(500, _SERVER, "an error in the gateway; its log has the details")


def _overloaded(error: Any) -> Envelope:
    return Envelope(
        503,
        _SERVER,
        str(error),
        code="server_is_overloaded",
        should_retry=True,
        retry_after_ms=error.retry_after_ms,
    )


def _full(error: Any) -> Envelope:
    retry_after_ms = error.retry_after_ms
    return Envelope(429, "rate_limit_error", str(error), "rate_limit_exceeded", None, True, retry_after_ms)


def _away(error: Any) -> Envelope:
    retry_after_ms = error.retry_after_ms
    return Envelope(503, _SERVER, str(error), "no_node_available", None, True, retry_after_ms)


def _busy(error: Any) -> Envelope:
    retry_after_ms = error.retry_after_ms
    return Envelope(409, _CONFLICT, error.reason, "conversation_busy", None, True, retry_after_ms)


def _late(error: Any) -> Envelope:
    return Envelope(408, _REQUEST, str(error), "request_timeout", should_retry=True)


def _store_away(_: Any) -> Envelope:
    message = "the store of dialogues does not answer; send the message again"
    return Envelope(503, _SERVER, message, "store_unavailable", None, True, 1000)


def _store_refused(_: Any) -> Envelope:
    """What it said is for the operator's eyes: it names hosts, versions and settings."""
    message = "the store of dialogues refuses to serve this; the gateway's log has its reason"
    return Envelope(503, _SERVER, message, "store_refused")


def _training_away(_: Any) -> Envelope:
    message = "the store of training jobs and files does not answer; send the request again"
    return Envelope(503, _SERVER, message, "store_unavailable", None, True, 1000)


_TABLE: Mapping[type, Callable[[Any], Envelope]] = {
    # the client's fault
    gateway.BadRequest: lambda e: Envelope(400, _REQUEST, e.message, e.code, e.param),
    gateway.TooLarge: lambda e: Envelope(
        413, _REQUEST, f"the body is larger than {e.limit} bytes", "request_too_large"
    ),
    gateway.BodyEncoded: lambda e: Envelope(415, _REQUEST, str(e), "unsupported_content_encoding"),
    gateway.BodyStalled: _late,
    gateway.HeadStalled: _late,
    gateway.HeadTooLarge: lambda e: Envelope(431, _REQUEST, str(e), "request_header_too_large"),
    gateway.UnknownModel: lambda e: Envelope(
        404,
        _REQUEST,
        f"The model '{e.model}' does not exist or no node serves it.",
        "model_not_found",
        "model",
    ),
    gateway.NoSuchItem: lambda e: Envelope(404, _REQUEST, e.message, "not_found", e.param),
    gateway.EngineRefused: lambda e: Envelope(e.status, _REQUEST, str(e), e.code, e.param),
    gateway.ClientFault: lambda e: Envelope(400, _REQUEST, str(e)),
    keys.InvalidKey: lambda e: Envelope(401, _REQUEST, str(e), "invalid_api_key"),
    keys.NotAllowed: lambda e: Envelope(403, "permission_denied", str(e), "permission_denied"),
    nodes.NodeNotFound: lambda e: Envelope(404, _REQUEST, str(e), "node_not_found"),
    nodes.AdapterRefused: lambda e: Envelope(e.status, _REQUEST, str(e), "adapter_refused"),
    nodes.NodeExists: lambda e: Envelope(409, _CONFLICT, str(e), "node_exists", "id"),
    nodes.NodeNotOurs: lambda e: Envelope(409, _CONFLICT, str(e), "node_not_removable"),
    nodes.RosterStoreUnavailable: lambda e: Envelope(
        503, _SERVER, str(e), "store_unavailable", should_retry=True, retry_after_ms=1000
    ),
    rollouts.RolloutNotFound: lambda e: Envelope(404, _REQUEST, str(e), "rollout_not_found"),
    rollouts.RolloutRefused: lambda e: Envelope(
        e.status, _CONFLICT if e.status == 409 else _REQUEST, str(e), "rollout_refused"
    ),
    rollouts.RolloutStoreUnavailable: lambda e: Envelope(
        503, _SERVER, str(e), "store_unavailable", should_retry=True, retry_after_ms=1000
    ),
    history.InvalidMessages: lambda e: Envelope(400, _REQUEST, e.reason, None, e.param),
    history.ConversationNotFound: lambda e: Envelope(
        404, _REQUEST, f"conversation '{e}' does not exist", "conversation_not_found", "conversation"
    ),
    history.ConversationMismatch: lambda e: Envelope(
        409, _CONFLICT, str(e), "conversation_mismatch", "messages"
    ),
    history.ConversationBusy: _busy,
    history.ConversationFull: lambda e: Envelope(400, _REQUEST, str(e), "conversation_full", "conversation"),
    history.QuotaExceeded: lambda e: Envelope(429, "insufficient_quota", str(e), "insufficient_quota"),
    training.InvalidJob: lambda e: Envelope(400, _REQUEST, str(e), None, e.field),
    training.JobNotFound: lambda e: Envelope(404, _REQUEST, str(e), "fine_tune_not_found"),
    training.FileMissing: lambda e: Envelope(404, _REQUEST, str(e), "file_not_found"),
    training.FileTooLarge: lambda e: Envelope(413, _REQUEST, str(e), "file_too_large", "file"),
    training.TooManyFiles: lambda e: Envelope(429, "insufficient_quota", str(e), "insufficient_quota"),
    training.TooManyJobs: lambda e: Envelope(429, "insufficient_quota", str(e), "insufficient_quota"),
    training.IllegalTransition: lambda e: Envelope(409, _CONFLICT, str(e), "fine_tune_status"),
    training.RequestFault: lambda e: Envelope(400, _REQUEST, str(e)),
    gateway.Interrupted: lambda e: Envelope(409, _CONFLICT, str(e), "interrupted"),
    # a node's
    gateway.NodesFull: _full,
    gateway.NodesDown: _away,
    gateway.NodeBusy: _overloaded,
    gateway.OutOfTime: lambda e: Envelope(504, _SERVER, str(e), "deadline_exceeded"),
    gateway.NodeFault: lambda e: Envelope(
        502, _SERVER, f"the model's node failed: {e}", "node_failed", should_retry=True
    ),
    # the gateway's own
    gateway.NotSetUp: lambda e: Envelope(501, _SERVER, str(e), "not_set_up"),
    gateway.Draining: lambda e: Envelope(
        503, _SERVER, str(e), "shutting_down", should_retry=True, retry_after_ms=e.retry_after_ms
    ),
    # the store's
    history.ConversationErased: lambda _: Envelope(
        409,
        _CONFLICT,
        "the conversation was erased, or expired, while its answer was being written; send the message again "
        "to begin it anew",
        "erased",
    ),
    history.UserErased: lambda _: Envelope(
        409,
        _CONFLICT,
        "this user was erased, and for a day nothing new is kept for it: leave the conversation out or send "
        "x-history: off for an answer without memory, or name another user",
        "erased",
    ),
    history.LeaseLost: lambda _: Envelope(
        409,
        _CONFLICT,
        "another writer took over the conversation; the turn was not stored",
        "conversation_busy",
        should_retry=True,
    ),
    history.StoreUnavailable: _store_away,
    history.StoreFault: _store_refused,
    training.JobConflict: lambda e: Envelope(409, _CONFLICT, str(e), "fine_tune_busy", None, True, 1000),
    training.StoreUnavailable: _training_away,
    training.QueueUnavailable: lambda _: Envelope(
        503,
        _SERVER,
        "the queue of training jobs did not take the job; resume it, or submit it again if it has failed",
        "queue_unavailable",
    ),
    training.StoreFault: _training_away,
}
