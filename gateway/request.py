"""A request for a completion: what it asks, and the body that goes to a node for it. Pure.

The body is taken apart into its top-level fields once and put together again from their own bytes, so
what an engine takes passes through as the client wrote it, and what only the gateway may say is left out.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
import xxhash

from gateway.errors import BadRequest, BodyEncoded
from history.rules import OnBusy

Fields = dict[str, msgspec.Raw]
Stateless = Literal["off", "window"]
"""What is done to the dialogue of a request without a conversation: nothing, or the window's cut."""

CHAT, TEXT, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
PROMPTS: Mapping[str, str] = {CHAT: "messages", TEXT: "prompt", EMBEDDINGS: "input"}
"""By path: the field that holds what the model is given."""
MAX_ID = 256
_MAX_CHOICES = 128
_MAX_ANSWER_TOKENS = 1_000_000
_LONGEST_ECHO = 64
_OURS = frozenset({"conversation", "session_id", "on_busy", "tail"})
_MAX_TAIL_CHARS = 8_000
# Honoured by engines and never taken from a client: whose cache, which rank, whose turn.
_ENGINE_ONLY = frozenset(
    {
        "cache_salt", "data_parallel_rank", "extra_key", "kv_transfer_params", "lora_path", "priority",
        "request_id", "return_token_ids", "rid", "routed_dp_rank", "vllm_xargs", "bootstrap_host",
        "bootstrap_port", "bootstrap_room",
    }
)  # fmt: skip
_STRIPPED = _OURS | _ENGINE_ONLY

_HISTORY = (b"on", b"off", b"window")
_WANTED = {
    "conversation": "a string or an object with an id",
    "on_busy": "one of queue, restart, reject",
    "tail": "an object with a note and a list of lore, both text",
}
"""What a field has to be, where msgspec's own message would not say."""

# Everything up to an escape that is half of a surrogate pair. Possessive: linear, whatever the body.
_BEFORE_HALF = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)*+(?=\\u)", re.DOTALL
)
_EMPTY = re.compile(rb"\[\s*\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_decode_fields = msgspec.json.Decoder(Fields).decode
T = TypeVar("T")


class _Metadata(msgspec.Struct):
    session_id: str | None = None
    user_id: str | None = None
    character: str | None = None


class _ConversationObject(msgspec.Struct):
    id: str


class TailFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client wants said behind its message, for this turn: an author's note, lore that applies."""

    note: str = ""
    lore: tuple[str, ...] = ()


class ChatRequest(msgspec.Struct, frozen=True):
    """One request as the use case reads it."""

    fields: Fields
    model: str
    messages: bytes
    stream: bool
    wants_usage: bool
    """Whether the client asked for a usage chunk at the end of the stream."""
    conversation: str | None
    is_windowed: bool
    """Whether its own dialogue is to be cut as a conversation's would be."""
    must_exist: bool
    user: str
    character: str
    on_busy: OnBusy | None
    answer_tokens: int
    """How long the answer may be; 0 where it is not said."""
    tail: TailFields
    idempotency_key: str
    is_retry: bool
    body_hash: bytes
    forgets: bool = False
    """It names a conversation that cannot be reached, and is answered without it."""
    salt: str = ""
    """Of the caller's cached prefixes; empty where all callers share them."""
    path: str = CHAT
    """Of a text completion or of embeddings, `messages` is what stands in place of them (`PROMPTS`)."""
    version: str = ""
    """What answers it, where `model` is an alias (`rollout`)."""

    @property
    def target(self) -> str:
        """What nodes are asked for."""
        return self.version or self.model


def read_request(
    body: bytes, headers: Mapping[bytes, bytes], *, adopt_cache_key: bool, stateless: Stateless = "off"
) -> ChatRequest:
    """Parse a request. Raises `BadRequest` naming the parameter that is wrong, or `BodyEncoded`."""
    check_encoding(headers)
    fields = read_fields(body)
    stream = read_field(fields, "stream", bool) or False
    metadata = read_field(fields, "metadata", _Metadata) or _Metadata()
    conversation = _conversation(fields, headers, metadata, adopt_cache_key=adopt_cache_key)
    history = _history(headers, has_conversation=conversation is not None)
    uses_history = conversation is not None and history != b"off"
    return ChatRequest(
        fields=fields,
        model=required_field(fields, "model", str),
        messages=_messages(fields),
        stream=stream,
        wants_usage=asks_for_usage(fields),
        conversation=conversation if uses_history else None,
        is_windowed=conversation is None
        and (history == b"window" or (history != b"off" and stateless == "window")),
        must_exist=uses_history and conversation is not None and conversation.startswith("conv_"),
        user=bounded(_user(fields, metadata), "user"),
        character=bounded(metadata.character or "", "metadata.character"),
        on_busy=read_field(fields, "on_busy", OnBusy),
        answer_tokens=_check_bounds(fields, has_history=uses_history),
        tail=_tail(fields, has_history=uses_history),
        idempotency_key=_idempotency_key(headers),
        is_retry=headers.get(b"x-stainless-retry-count", b"0") != b"0",
        body_hash=xxhash.xxh3_128_digest(body),
    )


def read_bare_request(
    body: bytes, headers: Mapping[bytes, bytes], *, conversation: str, model: str = ""
) -> ChatRequest:
    """A request about a conversation that brings no messages: its next prompt, or its last answer anew.

    `model`: for a body that names none. Asking twice does no harm, so it is no retry unless it has a key of
    its own. Raises what `read_request` raises.
    """
    check_encoding(headers)
    fields = read_fields(body or b"{}")
    if "messages" in fields:
        raise BadRequest("the messages are the conversation's own here: leave them out", param="messages")
    if model:
        fields.setdefault("model", msgspec.Raw(msgspec.json.encode(model)))
    return ChatRequest(
        fields=fields,
        model=required_field(fields, "model", str),
        messages=b"[]",
        stream=read_field(fields, "stream", bool) or False,
        wants_usage=asks_for_usage(fields),
        conversation=bounded(conversation, "conversation"),
        is_windowed=False,
        must_exist=True,
        user="",
        character="",
        on_busy=read_field(fields, "on_busy", OnBusy),
        answer_tokens=_check_bounds(fields, has_history=True),
        tail=_tail(fields, has_history=True),
        idempotency_key=_idempotency_key(headers),
        is_retry=False,
        body_hash=xxhash.xxh3_128_digest(body),
    )


def check_encoding(headers: Mapping[bytes, bytes]) -> None:
    """Raise `BodyEncoded` for a body that is not sent as it is."""
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise BodyEncoded(encoding[:_LONGEST_ECHO].decode("latin-1"))


def _idempotency_key(headers: Mapping[bytes, bytes]) -> str:
    return bounded(headers.get(b"idempotency-key", b"").decode("latin-1"), "idempotency-key")


def node_body(request: ChatRequest, messages: bytes, *, model: str, takes_salt: bool = True) -> bytes:
    """The body for a node: the client's fields, but these messages and this model name.

    Streamed answers always carry their usage: what was cached is how the gateway learns the truth.
    `takes_salt`: the engine knows caches that are kept apart.
    """
    prompt = PROMPTS[request.path]
    own = {"model", prompt}
    pieces = [b'{"model":', msgspec.json.encode(model), b',"%b":' % prompt.encode(), messages]
    if request.salt and takes_salt:
        pieces += (b',"cache_salt":', msgspec.json.encode(request.salt))
    if request.stream:
        own.add("stream_options")
        pieces += (b',"stream_options":', _stream_options(request.fields))
    for name, raw in request.fields.items():
        if name not in _STRIPPED and name not in own:
            pieces += (b',"%b":' % _key(name), bytes(raw))
    return b"".join((*pieces, b"}"))  # once: the prompt may be long


def read_fields(body: bytes) -> Fields:
    """A body's top-level fields, each as its own bytes. Raises `BadRequest` if it is no JSON object."""
    try:
        # Raw values are only scanned, so broken UTF-8 inside them would pass on to the node.
        body.decode()
        return _decode_fields(body)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not valid UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise BadRequest("the body must be a JSON object") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {_reason(error, body)}") from error


def _reason(error: msgspec.DecodeError, body: bytes) -> str:
    """What msgspec says, but of half a surrogate pair it would say that the body was cut off."""
    reason = str(error)
    if any(word in reason for word in ("surrogate", "truncated", "hex escape")):
        before = _BEFORE_HALF.match(body)
        if before is not None:
            return f"half of a surrogate pair is no character (byte {before.end()})"
    return reason


def _history(headers: Mapping[bytes, bytes], *, has_conversation: bool) -> bytes:
    """The wish of the header, empty where there is none."""
    wish = headers.get(b"x-history", b"").lower()
    if wish and wish not in _HISTORY:
        raise BadRequest("x-history must be one of on, off, window", param="x-history")
    if wish == b"window" and has_conversation:
        raise BadRequest(
            "x-history: window is for requests without a conversation: a conversation has its own window",
            param="x-history",
        )
    return wish


def read_field(fields: Fields, name: str, kind: type[T] | Any) -> T | None:
    """A field's value; None where it is missing or null. Raises `BadRequest` for another kind of value."""
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        return None
    try:
        value: T = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        wanted = _WANTED.get(name)
        message = f"{name} must be {wanted}" if wanted else f"{name}: {error}"
        raise BadRequest(message, param=name) from error
    return value


def required_raw(fields: Fields, name: str) -> msgspec.Raw:
    """A field's bytes. Raises `BadRequest` where it is missing or null."""
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        raise BadRequest(f"you must provide {name}", param=name, code="missing_required_parameter")
    return raw


def _messages(fields: Fields) -> bytes:
    raw = bytes(required_raw(fields, "messages"))
    if not raw.startswith(b"["):
        raise BadRequest("messages must be an array", param="messages")
    if _EMPTY.match(raw):
        raise BadRequest("messages must not be empty", param="messages")
    return raw


def required_field(fields: Fields, name: str, kind: type[T]) -> T:
    """A field's value. Raises `BadRequest` where it is missing, null, or of another kind."""
    required_raw(fields, name)
    value = read_field(fields, name, kind)
    assert value is not None
    return value


def _conversation(
    fields: Fields, headers: Mapping[bytes, bytes], metadata: _Metadata, *, adopt_cache_key: bool
) -> str | None:
    """The id, by the order that the contract fixes; empty strings name nothing."""
    named = read_field(fields, "conversation", str | _ConversationObject)
    found = (
        (named.id if isinstance(named, _ConversationObject) else named)
        or headers.get(b"x-session-id", b"").decode("utf-8", "replace")
        or read_field(fields, "session_id", str)
        or (adopt_cache_key and (read_field(fields, "prompt_cache_key", str) or metadata.session_id))
    )
    return bounded(found, "conversation") if found else None


def _user(fields: Fields, metadata: _Metadata) -> str:
    safety_identifier: str | None = read_field(fields, "safety_identifier", str)
    user: str | None = read_field(fields, "user", str)
    return safety_identifier or user or metadata.user_id or ""


def bounded(text: str, param: str) -> str:
    """An id or a name as it came. Raises `BadRequest` if it is too long or has control characters."""
    if len(text) > MAX_ID:
        raise BadRequest(f"{param} is longer than {MAX_ID} characters", param=param)
    if _CONTROL.search(text):
        # It comes back in a header, where a line break would begin another one.
        raise BadRequest(f"{param} has control characters in it", param=param)
    return text


def _check_bounds(fields: Fields, *, has_history: bool) -> int:
    """How long the answer may be, 0 where that is not said."""
    asked: int | None = read_field(fields, "n", int)
    choices = 1 if asked is None else asked
    if not 1 <= choices <= _MAX_CHOICES:
        raise BadRequest(f"n must be between 1 and {_MAX_CHOICES}", param="n")
    if has_history and choices != 1:
        raise BadRequest("n must be 1 with a conversation", param="n")
    limits: list[int] = []
    for name in ("max_tokens", "max_completion_tokens"):
        limit: int | None = read_field(fields, name, int)
        if limit is not None and not 1 <= limit <= _MAX_ANSWER_TOKENS:
            raise BadRequest(f"{name} must be between 1 and {_MAX_ANSWER_TOKENS}", param=name)
        limits += [] if limit is None else [limit]
    return max(limits, default=0)


def _tail(fields: Fields, *, has_history: bool) -> TailFields:
    tail: TailFields = read_field(fields, "tail", TailFields) or TailFields()
    if (tail.note or tail.lore) and not has_history:
        raise BadRequest("tail needs a conversation: without one, write it into your message", param="tail")
    if len(tail.note) + sum(map(len, tail.lore)) > _MAX_TAIL_CHARS:
        raise BadRequest(f"tail is longer than {_MAX_TAIL_CHARS} characters", param="tail")
    return tail


def asks_for_usage(fields: Fields) -> bool:
    """Whether the stream shall end with a usage chunk."""
    options: dict[str, Any] | None = read_field(fields, "stream_options", dict[str, Any])
    return bool(options and options.get("include_usage"))


def _stream_options(fields: Fields) -> bytes:
    options: dict[str, Any] | None = read_field(fields, "stream_options", dict[str, Any])
    return msgspec.json.encode({**(options or {}), "include_usage": True})


def _key(name: str) -> bytes:
    """A field's name as it stands inside quotes."""
    return msgspec.json.encode(name)[1:-1]
