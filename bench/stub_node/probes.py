"""The routes by which a router learns about a node: health, models, load, sizes, tokens."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from bench.stub_node import embeddings, metrics, tokens, wire
from bench.stub_node.http1 import Connection, Request
from bench.stub_node.node import Node
from bench.stub_node.refusal import Refusal, Refused
from bench.stub_node.template import templated

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def health(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /health. SGLang's takes a second, which `health_delay` plays."""
    if node.spec.health_delay:
        await asyncio.sleep(node.spec.health_delay)
    connection.send(200, b'{"status":"ok"}' if node.spec.engine == "openai" else b"")


async def ready(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /ready."""
    connection.send(200, b"")


async def models(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /v1/models."""
    listed = node.dialect.models(
        node.spec.model, node.adapters, created=node.started, limit=node.spec.context_length
    )
    connection.send(200, wire.encode(listed))


async def prometheus(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /metrics."""
    connection.send(200, metrics.render(node).encode(), content_type=_PROMETHEUS)


async def loads(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /v1/loads (SGLang): the load at this moment, while its /metrics lag."""
    engine, cache = node.engine, node.engine.cache
    used = cache.held_blocks * cache.block_size
    load = {
        "timestamp": datetime.now(UTC).timestamp(),
        "dp_rank": 0,
        "num_running_reqs": engine.running,
        "num_waiting_reqs": engine.waiting,
        "num_waiting_uncached_tokens": engine.waiting_tokens,
        "num_used_tokens": used,
        "num_total_tokens": used + engine.waiting_tokens,
        "max_total_num_tokens": cache.capacity * cache.block_size,
        "max_running_requests": node.spec.max_running,
        "token_usage": round(metrics.kv_usage(node), 4),
        "cache_hit_rate": round(metrics.hit_rate(node), 4),
        "total_prefill_uncached_tokens": engine.totals.prompt_tokens - engine.totals.cached_tokens,
    }
    now = datetime.now(UTC).isoformat()
    connection.send(
        200, wire.encode({"timestamp": now, "version": "0.5.23", "num_accelerators": 1, "loads": [load]})
    )


async def server_info(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /server_info (SGLang), the fields that size a node."""
    cache = node.engine.cache
    connection.send(
        200,
        wire.encode(
            {
                "version": node.spec.engine_version,
                "status": "ready",
                "served_model_name": node.spec.model,
                "context_length": node.spec.context_length,
                "max_total_num_tokens": cache.capacity * cache.block_size,
                "page_size": cache.block_size,
                "dp_size": 1,
                "enable_cache_report": node.spec.has("cache_report"),
                "disable_radix_cache": not node.spec.has("prefix_caching"),
                "enable_priority_scheduling": node.spec.has("priority"),
                "kv_events": _sglang_events(node),
            }
        ),
    )


def _sglang_events(node: Node) -> dict[str, Any] | None:
    publisher = node.events.publisher
    if publisher is None:
        return None
    return {
        "publisher": "zmq",
        "endpoint_host": "*",
        "endpoint_port_base": publisher.port,
        "topic": publisher.form.topic.decode(),
        "block_size": node.engine.cache.block_size,
        "dp_size": 1,
        "replay_endpoint_port_base": publisher.replay_port,
    }


async def version(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /version (vLLM)."""
    connection.send(200, wire.encode({"version": node.spec.engine_version}))


async def kv_event_sources(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /kv_event_sources (vLLM): where each rank publishes."""
    publisher = node.events.publisher
    sources: dict[str, Any] = {}
    if publisher is not None:
        sources["0"] = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"tcp://*:{publisher.port}",
            "replay_endpoint": f"tcp://*:{publisher.replay_port}",
            "topic": publisher.form.topic.decode(),
        }
    connection.send(200, wire.encode(sources))


async def props(node: Node, request: Request, connection: Connection) -> None:  # noqa: ARG001  one shape for routes
    """GET /props (llama.cpp)."""
    settings = {"n_ctx": node.spec.context_length}
    connection.send(
        200,
        wire.encode(
            {
                "default_generation_settings": settings,
                "build_info": node.spec.engine_version,
                "total_slots": node.spec.max_running,
                "model_alias": node.spec.model,
            }
        ),
    )


async def apply_template(node: Node, request: Request, connection: Connection) -> None:
    """POST /apply-template (llama.cpp): the text that a chat would become."""
    body = wire.decode(request.body, wire.TokenizeRequest)
    text = tokens.render(templated(node, body.messages or []), answer_next=True)
    connection.send(200, wire.encode({"prompt": text}))


async def tokenize(node: Node, request: Request, connection: Connection) -> None:
    """POST /tokenize: the ids that a prompt or a chat would become."""
    body = wire.decode(request.body, wire.TokenizeRequest)
    if body.messages is not None:
        text = tokens.render(templated(node, body.messages), answer_next=body.add_generation_prompt)
    elif body.prompt is not None:
        text = body.prompt
    elif body.content is not None:
        text = body.content
    else:
        raise Refused(Refusal(400, "bad_body", "give prompt, content or messages"))
    ids = tokens.encode(text).tolist()
    answer = {"count": len(ids), "max_model_len": node.spec.context_length, "tokens": ids, "token_strs": None}
    connection.send(200, wire.encode({"tokens": ids} if node.spec.engine == "openai" else answer))


async def embed(node: Node, request: Request, connection: Connection) -> None:
    """POST /v1/embeddings."""
    body = wire.decode(request.body, wire.EmbeddingRequest)
    texts = [body.input] if isinstance(body.input, str) else [_spoken(item) for item in body.input]
    size = body.dimensions or node.spec.embedding_size
    if not 0 < size <= node.spec.embedding_size:
        raise Refused(
            Refusal(400, "bad_request", f"dimensions must lie between 1 and {node.spec.embedding_size}")
        )
    vectors = [embeddings.embed(text, size=size) for text in texts]
    as_text = body.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": embeddings.as_base64(vector) if as_text else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    count = sum(len(tokens.split(text)) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    listed = {"object": "list", "data": data, "model": body.model or node.spec.model, "usage": usage}
    connection.send(200, wire.encode(listed))


def _spoken(item: str | int | list[int]) -> str:
    """Token ids have no text here; each becomes a word of its own, so that equal ids get equal vectors."""
    if isinstance(item, str):
        return item
    return " ".join(map(str, item)) if isinstance(item, list) else str(item)
