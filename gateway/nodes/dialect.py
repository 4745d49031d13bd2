"""How the engines differ: where health, models and load are found, and what their errors look like.

One record per engine instead of a class each: what varies is data.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.routing.node import Engine


class Dialect(msgspec.Struct, frozen=True):
    """One engine's paths and metric names (current ones first, then older ones).

    `engine_metrics` reads them.
    """

    health: tuple[str, ...]
    """A path that is answered when it is well, and the one of older versions."""
    waiting: tuple[str, ...]
    working: tuple[str, ...]
    """Requests that are being computed."""
    kv_usage: tuple[str, ...]
    prompt_tokens: tuple[str, ...]
    """Counters that only a restart sets back."""
    cached_tokens_flag: str
    """What makes it report cached tokens."""
    progress: tuple[str, ...] = ()
    """Counters of tokens, one of which goes on with every step that is computed. SGLang and llama.cpp count
    when an answer is complete, which says nothing of those under way.
    """
    block_size: tuple[str, ...] = ()
    capacity: tuple[str, ...] = ()
    """Gauges of tokens per cache block, and of tokens that the cache holds."""
    config: str = ""
    """A gauge whose labels are the cache's settings, the two above among them."""
    loads: str = ""
    """A path that tells the load of this moment, where metrics lag behind or are off by default."""
    load_adapter: str = ""
    unload_adapter: str = ""
    """Paths that load and unload LoRA adapters while it runs."""
    rank_label: str = ""
    """Tells the metrics of one data-parallel rank from another's."""


DIALECTS: Mapping[Engine, Dialect] = {
    "vllm": Dialect(
        health=("/health",),
        waiting=("vllm:num_requests_waiting",),
        working=("vllm:num_requests_running",),
        kv_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        prompt_tokens=("vllm:prompt_tokens_total",),
        progress=("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
        config="vllm:cache_config_info",
        load_adapter="/v1/load_lora_adapter",
        unload_adapter="/v1/unload_lora_adapter",
        rank_label="engine",
        cached_tokens_flag="--enable-prompt-tokens-details",
    ),
    # SGLang's /health generates a token and takes a second; /ready answers at once, where there is one.
    "sglang": Dialect(
        health=("/ready", "/get_model_info"),
        waiting=("sglang:num_queue_reqs", "sglang_num_queue_reqs"),
        working=("sglang:num_running_reqs", "sglang_num_running_reqs"),
        kv_usage=("sglang:token_usage", "sglang_token_usage"),
        prompt_tokens=("sglang:prompt_tokens_total", "sglang_prompt_tokens_total"),
        block_size=("sglang:page_size", "sglang_page_size"),
        capacity=("sglang:max_total_num_tokens", "sglang_max_total_num_tokens"),
        loads="/v1/loads",
        load_adapter="/load_lora_adapter",
        unload_adapter="/unload_lora_adapter",
        rank_label="dp_rank",
        cached_tokens_flag="--enable-cache-report",
    ),
    # Ollama has no health path; every server that speaks the API lists its models.
    "openai": Dialect(
        health=("/v1/models",),
        waiting=("llamacpp:requests_deferred",),
        working=("llamacpp:requests_processing",),
        kv_usage=("llamacpp:kv_cache_usage_ratio",),
        prompt_tokens=("llamacpp:prompt_tokens_total",),
        cached_tokens_flag="an engine that reports usage.prompt_tokens_details.cached_tokens",
    ),
}


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
        inner = fields.get("error", fields)
        # A bare text has its code beside it, if anywhere.
        fields = {**fields, "message": inner} if isinstance(inner, str) else inner
    if not isinstance(fields, dict):
        fields = {"message": str(fields)}
    message = str(fields.get("message") or fields.get("detail") or "the node gave no reason")
    param = fields.get("param")
    return EngineError(
        message=message,
        code="context_length_exceeded" if _CONTEXT.search(message) else None,
        param=param if isinstance(param, str) else None,
        status=_status(fields),
    )


def read_refusal(payload: bytes) -> EngineError | None:
    """The error that stands in the place of a stream's first chunk, or of a whole answer; None: it is none.

    Every chunk has `choices`, and every vector is an `embedding`, quoted as it is only where it is a field.
    """
    if b'"choices"' in payload or b'"embedding"' in payload:
        return None
    try:
        fields: Any = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    is_error = isinstance(fields, dict) and (fields.get("error") or fields.get("object") == "error")
    return read_error(payload) if is_error else None


_STATUSES = {
    "service_unavailable": 503,
    "serviceunavailableerror": 503,
    "rate_limit_error": 429,
    "ratelimiterror": 429,
    "badrequesterror": 400,
    "invalid_request_error": 400,
}
"""By an error's `type`, where it names no status."""


def _status(fields: dict[str, Any]) -> int | None:
    code = fields.get("code")
    if isinstance(code, str) and code.isdecimal():
        code = int(code[:4])
    if isinstance(code, int) and 400 <= code < 600:
        return code
    return _STATUSES.get(str(fields.get("type")).lower())
