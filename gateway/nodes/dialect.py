"""How the engines differ: where health, models and load are found, and what their errors look like.

One record per engine instead of a class each: what varies is data.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.routing.node import Engine


class Dialect(msgspec.Struct, frozen=True):
    """One engine's paths and metric names (current ones first, then older ones)."""

    health: str
    waiting: tuple[str, ...]
    kv_usage: tuple[str, ...]
    block_size: tuple[str, ...]
    """Label or gauge that tells how many tokens a cache block has."""
    cached_tokens_flag: str
    """What makes it report cached tokens."""


DIALECTS: Mapping[Engine, Dialect] = {
    "vllm": Dialect(
        health="/health",
        waiting=("vllm:num_requests_waiting",),
        kv_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        block_size=('vllm:cache_config_info{block_size="',),
        cached_tokens_flag="--enable-prompt-tokens-details",
    ),
    # SGLang's /health generates a token and takes a second; /ready answers at once.
    "sglang": Dialect(
        health="/ready",
        waiting=("sglang:num_queue_reqs", "sglang_num_queue_reqs"),
        kv_usage=("sglang:token_usage", "sglang_token_usage"),
        block_size=("sglang:page_size", "sglang_page_size"),
        cached_tokens_flag="--enable-cache-report",
    ),
    # Ollama has no health path; every server that speaks the API lists its models.
    "openai": Dialect(
        health="/v1/models",
        waiting=("llamacpp:requests_deferred",),
        kv_usage=("llamacpp:kv_cache_usage_ratio",),
        block_size=(),
        cached_tokens_flag="an engine that reports usage.prompt_tokens_details.cached_tokens",
    ),
}

_SAMPLE = re.compile(rb"^([a-zA-Z_:][\w:]*)(\{[^}\n]*\})? ([^\s]+)", re.MULTILINE)
_BLOCK_SIZE = re.compile(rb'block_size="(\d{1,9})"')


class Load(msgspec.Struct, frozen=True):
    """What a node's metrics say; None where they say nothing. Ranks: queues add up, the fullest counts."""

    waiting: int | None
    kv_usage: float | None
    block_size: int | None


def read_load(metrics: bytes, dialect: Dialect) -> Load:
    """The load in a Prometheus text. An absent gauge is unknown, not zero."""
    wanted = _wanted(dialect)
    samples: dict[str, list[float]] = {}
    for name, _, value in _SAMPLE.findall(metrics):
        if name in wanted:
            samples.setdefault(name.decode(), []).extend(_number(value))
    waiting = _first(samples, dialect.waiting)
    usage = _first(samples, dialect.kv_usage)
    return Load(
        waiting=int(sum(waiting)) if waiting else None,
        kv_usage=max(usage) if usage else None,
        block_size=_block_size(metrics, samples, dialect),
    )


class EngineError(msgspec.Struct, frozen=True):
    """An engine's error, whatever envelope it came in."""

    message: str
    code: str | None
    param: str | None
    status: int | None = None
    """The HTTP status that the error itself names: inside a stream there is no other."""


_CONTEXT = re.compile(
    r"context (length|size|window)|maximum (model|context) length|longer than the model|max_model_len"
    r"|exceeds? the (available|maximum) context|prompt is too long",
    re.IGNORECASE,
)


def read_error(body: bytes) -> EngineError:
    """OpenAI's envelope (vLLM, llama.cpp), SGLang's flat one, FastAPI's `detail`, or plain text."""
    try:
        fields: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = {"message": body[:500].decode(errors="replace")}
    if isinstance(fields, dict):
        fields = fields.get("error", fields)
    if not isinstance(fields, dict):
        fields = {"message": str(fields)}
    message = str(fields.get("message") or fields.get("detail") or "the node gave no reason")
    param, status = fields.get("param"), fields.get("code")
    return EngineError(
        message=message,
        code="context_length_exceeded" if _CONTEXT.search(message) else None,
        param=param if isinstance(param, str) else None,
        status=status if isinstance(status, int) and 400 <= status < 600 else None,
    )


def _wanted(dialect: Dialect) -> frozenset[bytes]:
    return frozenset(name.encode() for name in (*dialect.waiting, *dialect.kv_usage, *dialect.block_size))


def _block_size(metrics: bytes, samples: Mapping[str, list[float]], dialect: Dialect) -> int | None:
    if gauge := _first(samples, dialect.block_size):
        return int(gauge[0])
    found = _BLOCK_SIZE.search(metrics) if dialect.block_size else None
    return int(found.group(1)) if found else None


def _first(samples: Mapping[str, list[float]], names: tuple[str, ...]) -> list[float] | None:
    return next((samples[name] for name in names if samples.get(name)), None)


def _number(text: bytes) -> list[float]:
    """The sample, if it is a number that can be counted with: gauges may be NaN."""
    try:
        value = float(text)
    except ValueError:
        return []
    return [value] if math.isfinite(value) else []
