"""The gauges and counters that a router reads, under each engine's own names.

Only what the stub really has: no histograms, and no gauge that would always be zero on it unless an engine's
readers expect the name.
"""

from collections.abc import Callable, Iterable, Mapping

from bench.stub_node.node import Node
from bench.stub_node.spec import EngineName

Sample = tuple[str, str, Mapping[str, str], float]
"""Type, name, labels, value."""


def render(node: Node) -> str:
    """The node's metrics in Prometheus's text format."""
    lines: list[str] = []
    typed: set[str] = set()
    for kind, name, labels, value in _BY_ENGINE[node.spec.engine](node):
        if name not in typed:
            typed.add(name)
            lines.append(f"# TYPE {name} {kind}")
        inside = ",".join(f'{key}="{label}"' for key, label in labels.items())
        lines.append(f"{name}{{{inside}}} {float(value)!r}" if inside else f"{name} {float(value)!r}")
    return "\n".join(lines) + "\n"


def kv_usage(node: Node) -> float:
    """The share of blocks that running requests hold, 0 to 1."""
    return node.engine.cache.held_blocks / node.engine.cache.capacity


def hit_rate(node: Node) -> float:
    totals = node.engine.totals
    return totals.cached_tokens / totals.prompt_tokens if totals.prompt_tokens else 0.0


def _vllm(node: Node) -> Iterable[Sample]:
    labels = {"engine": "0", "model_name": node.spec.model}
    totals, cache = node.engine.totals, node.engine.cache
    yield "gauge", "vllm:num_requests_running", labels, node.engine.running
    yield "gauge", "vllm:num_requests_waiting", labels, node.engine.waiting
    yield "gauge", "vllm:kv_cache_usage_perc", labels, kv_usage(node)
    yield "counter", "vllm:prefix_cache_queries_total", labels, totals.prompt_tokens
    yield "counter", "vllm:prefix_cache_hits_total", labels, totals.cached_tokens
    yield "counter", "vllm:num_preemptions_total", labels, 0
    yield "counter", "vllm:prompt_tokens_total", labels, totals.prompt_tokens
    yield "counter", "vllm:prompt_tokens_cached_total", labels, totals.cached_tokens
    yield "counter", "vllm:generation_tokens_total", labels, totals.answer_tokens
    for reason in ("stop", "length", "abort"):
        ended = totals.ended[reason] + (totals.ended["tool_calls"] if reason == "stop" else 0)
        yield "counter", "vllm:request_success_total", {**labels, "finished_reason": reason}, ended
    refused = {"model_name": node.spec.model, "reason": "max_num_queued_reqs"}
    yield "counter", "vllm:admission_rejections_total", refused, totals.turned_away
    config = {
        "block_size": str(cache.block_size),
        "enable_prefix_caching": str(node.spec.has("prefix_caching")),
        "engine": "0",
        "kv_cache_size_tokens": str(cache.capacity * cache.block_size),
        "num_gpu_blocks": str(cache.capacity),
    }
    yield "gauge", "vllm:cache_config_info", config, 1


def _sglang(node: Node) -> Iterable[Sample]:
    labels = {
        "engine_type": "unified",
        "model_name": node.spec.model,
        "tp_rank": "0",
        "pp_rank": "0",
        "moe_ep_rank": "0",
    }
    totals, cache = node.engine.totals, node.engine.cache
    held = cache.held_blocks * cache.block_size
    yield "gauge", "sglang:num_running_reqs", labels, node.engine.running
    yield "gauge", "sglang:num_queue_reqs", labels, node.engine.waiting
    yield "gauge", "sglang:token_usage", labels, kv_usage(node)
    yield "gauge", "sglang:cache_hit_rate", labels, hit_rate(node)
    yield "gauge", "sglang:kv_used_tokens", labels, held
    stored = cache.stored_blocks * cache.block_size
    yield "gauge", "sglang:kv_evictable_tokens", labels, max(0, stored - held)
    yield "gauge", "sglang:max_total_num_tokens", labels, cache.capacity * cache.block_size
    yield "gauge", "sglang:page_size", labels, cache.block_size
    yield "counter", "sglang:prompt_tokens_total", labels, totals.prompt_tokens
    yield "counter", "sglang:generation_tokens_total", labels, totals.answer_tokens
    yield "counter", "sglang:cached_tokens_total", {**labels, "cache_source": "device"}, totals.cached_tokens
    yield "counter", "sglang:num_requests_total", labels, totals.ended.total()
    if totals.ended["abort"]:
        yield "counter", "sglang:num_aborted_requests_total", labels, totals.ended["abort"]
    config = {**labels, "page_size": str(cache.block_size), "num_pages": str(cache.capacity)}
    yield "gauge", "sglang:cache_config_info", config, 1


def _llamacpp(node: Node) -> Iterable[Sample]:
    totals = node.engine.totals
    computed = totals.prompt_tokens - totals.cached_tokens
    yield "counter", "llamacpp:prompt_tokens_total", {}, computed
    yield "counter", "llamacpp:prompt_tokens_cached_total", {}, totals.cached_tokens
    yield "counter", "llamacpp:prompt_seconds_total", {}, totals.prefill_seconds
    yield "counter", "llamacpp:tokens_predicted_total", {}, totals.answer_tokens
    yield "counter", "llamacpp:tokens_predicted_seconds_total", {}, totals.decode_seconds
    yield "gauge", "llamacpp:prompt_tokens_seconds", {}, node.spec.prefill_rate
    yield "gauge", "llamacpp:predicted_tokens_seconds", {}, node.spec.decode_rate
    yield "gauge", "llamacpp:requests_processing", {}, node.engine.running
    yield "gauge", "llamacpp:requests_deferred", {}, node.engine.waiting


_BY_ENGINE: dict[EngineName, Callable[[Node], Iterable[Sample]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "openai": _llamacpp,
}
