"""Meeting a node: what its engine is, what it is set to, and what only a request shows.

Asked when a node becomes healthy and now and then after. What is not answered stays unknown: no node is
kept from traffic for it.
"""

import asyncio

import msgspec

from gateway.errors import NodeFault
from gateway.nodes import completion
from gateway.nodes.asking import Answered, Asker
from gateway.nodes.dialect import DIALECTS
from gateway.nodes.engine_facts import (
    read_kv_sources,
    read_props,
    read_running_models,
    read_server_info,
    read_version,
)
from gateway.nodes.engine_metrics import read_cache
from gateway.nodes.polling import MAX_METRICS
from gateway.nodes.usage import Usage
from gateway.routing.node import EngineFacts, Node, NodeSpec

_TRIAL_WITHIN_S = 30.0
_LONGEST_BLOCK = 512
_WORDS = ("north", "east", "south", "west", "up", "down", "left", "right")


async def meet(asker: Asker, node: Node) -> EngineFacts:
    """What the engine tells of itself. Never raises a `NodeFault`."""
    spec = node.spec
    match spec.engine:
        case "vllm":
            version, sources, metrics = await asyncio.gather(
                _told(asker, "/version"), _told(asker, "/kv_event_sources"), _told(asker, "/metrics")
            )
            found = read_cache(metrics, DIALECTS["vllm"], spec.rank)
            return msgspec.structs.replace(
                found,
                product="vLLM",
                version=read_version(version) or "",
                kv_source=spec.kv_events or read_kv_sources(sources, spec),
            )
        case "sglang":
            found = await _meet_sglang(asker, spec)
            return msgspec.structs.replace(found, kv_source=spec.kv_events or found.kv_source)
        case _:
            return await _meet_other(asker, node)


async def running_context(asker: Asker, models: frozenset[str]) -> int | None:
    """The context of the models that Ollama has loaded: it loads them at the first request."""
    return read_running_models(await _told(asker, "/api/ps"), models)


async def try_out(asker: Asker, node: Node, model: str) -> EngineFacts:
    """The facts, with what two tiny requests show: a priority is taken or not, cached tokens told or not.

    vLLM tells of cached tokens only where there are any, so the second request repeats the first. Raises a
    `NodeFault` if a request fails for another reason.
    """
    takes_priority = node.facts.takes_priority
    request = _request(node, model)
    usage = Usage()
    for _ in range(2):
        if node.spec.engine == "vllm" and takes_priority is None:
            takes_priority, usage = await _with_priority(asker, request)
        else:
            usage = await _usage(asker, request)
        if usage.cached is not None:
            break
    return msgspec.structs.replace(
        node.facts,
        takes_priority=takes_priority,
        reports_cached=usage.cached is not None if node.facts.caches is not False else None,
    )


def is_worth_trying(node: Node) -> bool:
    """Whether a request would show what the engine does not tell."""
    needs = node.facts.reports_cached is None or (
        node.spec.engine == "vllm" and node.facts.takes_priority is None
    )
    return needs and node.block_size <= _LONGEST_BLOCK


async def _meet_sglang(asker: Asker, spec: NodeSpec) -> EngineFacts:
    for path in ("/server_info", "/get_server_info"):
        if found := read_server_info(await _told(asker, path), spec):
            return found
    metrics = await _told(asker, "/metrics")
    return msgspec.structs.replace(read_cache(metrics, DIALECTS["sglang"], spec.rank), product="SGLang")


async def _meet_other(asker: Asker, node: Node) -> EngineFacts:
    if found := read_props(await _told(asker, "/props")):
        return found
    version = read_version(await _told(asker, "/api/version"))
    if version is None:
        return EngineFacts()
    context = await running_context(asker, node.models)
    return EngineFacts(product="Ollama", version=version, context=context)


async def _with_priority(asker: Asker, request: dict[str, object]) -> tuple[bool, Usage]:
    try:
        return True, await _usage(asker, {**request, "priority": 1})
    except Answered as refused:
        if refused.status // 100 != 4 or b"riority" not in refused.body:
            raise
    return False, await _usage(asker, request)


async def _usage(asker: Asker, request: dict[str, object]) -> Usage:
    body = msgspec.json.encode(request)
    return completion.usage_of(await asker.post("/v1/chat/completions", body, within_s=_TRIAL_WITHIN_S))


def _request(node: Node, model: str) -> dict[str, object]:
    """More than two blocks of text, one token of answer."""
    words = 2 * node.block_size + 16
    text = " ".join(_WORDS[at % len(_WORDS)] for at in range(words))
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 1,
        "temperature": 0,
    }


async def _told(asker: Asker, path: str) -> bytes:
    try:
        return await asker.get(path, MAX_METRICS)
    except NodeFault:
        return b""  # not every engine knows every path
