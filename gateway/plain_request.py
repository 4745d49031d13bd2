"""A text completion or embeddings: what is asked, read as far as the gateway has to know it. Pure.

Nothing of these is remembered. A text's prefix is told by pieces of its own bytes, so that one that grows
goes where its beginning was computed; embeddings have none to go by.
"""

from collections.abc import Mapping

import msgspec
import xxhash

from gateway.errors import BadRequest
from gateway.request import (
    PROMPTS,
    TEXT,
    ChatRequest,
    Fields,
    TailFields,
    asks_for_usage,
    bounded,
    check_encoding,
    read_field,
    read_fields,
    required_field,
    required_raw,
)

_PIECE = 2048
"""Bytes, some 500 tokens: what two texts share is known to so much."""
_MAX_CHOICES = 128
_MAX_ANSWER_TOKENS = 1_000_000
_MAX_INPUTS = 2048
"""As OpenAI has it."""


def read_plain_request(body: bytes, headers: Mapping[bytes, bytes], *, path: str) -> ChatRequest:
    """Parse a request to that path. Raises `BadRequest`, which names the parameter, or `BodyEncoded`."""
    check_encoding(headers)
    fields = read_fields(body)
    if "conversation" in fields:
        raise BadRequest("conversations are for /v1/chat/completions only", param="conversation")
    is_text = path == TEXT
    return ChatRequest(
        fields=fields,
        model=required_field(fields, "model", str),
        messages=_prompt(fields, PROMPTS[path]),
        stream=is_text and (read_field(fields, "stream", bool) or False),
        wants_usage=is_text and asks_for_usage(fields),
        conversation=None,
        is_windowed=False,
        must_exist=False,
        user=bounded(read_field(fields, "user", str) or "", "user"),
        character="",
        on_busy=None,
        answer_tokens=_answer_tokens(fields),
        tail=TailFields(),
        idempotency_key="",
        is_retry=False,
        body_hash=b"",
        path=path,
    )


def pieces_of(prompt: bytes) -> list[bytes]:
    """The prompt in pieces of one size, without what is left at its end and will be longer the next time.

    One that is shorter than a piece is one.
    """
    whole = len(prompt) // _PIECE * _PIECE
    return [prompt[at : at + _PIECE] for at in range(0, whole, _PIECE)] or [prompt]


def key_of(prompt: bytes) -> bytes:
    """What rendezvous goes by where there is no prefix."""
    return xxhash.xxh3_128_digest(prompt)


def _prompt(fields: Fields, name: str) -> bytes:
    """A text, token ids, or a list of either; what else is in a list is the engine's to refuse."""
    raw = bytes(required_raw(fields, name))
    if raw.startswith(b"["):
        many = msgspec.json.decode(raw, type=list[msgspec.Raw])
        if not many:
            raise BadRequest(f"{name} must not be empty", param=name)
        if len(many) > _MAX_INPUTS and bytes(many[0])[:1] in (b'"', b"["):
            raise BadRequest(f"{name} has more than {_MAX_INPUTS} texts", param=name)
    elif not raw.startswith(b'"'):
        raise BadRequest(f"{name} must be a text, or a list of texts or of token ids", param=name)
    return raw


def _answer_tokens(fields: Fields) -> int:
    for name in ("n", "best_of"):
        choices: int | None = read_field(fields, name, int)
        if choices is not None and not 1 <= choices <= _MAX_CHOICES:
            raise BadRequest(f"{name} must be between 1 and {_MAX_CHOICES}", param=name)
    limit: int | None = read_field(fields, "max_tokens", int)
    if limit is not None and not 0 <= limit <= _MAX_ANSWER_TOKENS:
        raise BadRequest(f"max_tokens must be between 0 and {_MAX_ANSWER_TOKENS}", param="max_tokens")
    return limit or 0
