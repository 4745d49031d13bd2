"""What an engine tells of itself when it is met, in each one's own form, and what it lacks. Pure.

    vLLM        /version, /kv_event_sources, labels of a metric
    SGLang      /server_info (older: /get_server_info)
    llama.cpp   /props
    Ollama      /api/version, /api/ps: behind its OpenAI API the context is neither told nor an error

What cannot be read is unknown; nothing here raises.
"""

from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from gateway.nodes.addresses import is_link_local
from gateway.nodes.kv_events import with_rank
from gateway.routing.kv_source import KvSource
from gateway.routing.node import EngineFacts, NodeSpec

T = TypeVar("T")

_TEXT_SHOWN = 80
_ANYWHERE = frozenset({"", "*", "0.0.0.0", "::", "[::]"})  # noqa: S104 - what engines say, not what is bound


class _Version(msgspec.Struct, frozen=True):
    version: str


class _VllmSource(msgspec.Struct, frozen=True):
    endpoint: str
    data_parallel_rank: int | None = 0
    replay_endpoint: str | None = None
    topic: str | None = ""


class _VllmSources(msgspec.Struct, frozen=True):
    sources: list[_VllmSource]


class _SglangEvents(msgspec.Struct, frozen=True):
    endpoint_port_base: int
    endpoint_host: str = "*"
    topic: str | None = ""
    replay_endpoint_port_base: int | None = None


class _ServerInfo(msgspec.Struct, frozen=True):
    version: str = ""
    max_total_num_tokens: int | None = None
    page_size: int | None = None
    dp_size: int | None = None
    enable_cache_report: bool | None = None
    disable_radix_cache: bool | None = None
    enable_priority_scheduling: bool | None = None
    kv_events: Any = None
    max_lora_rank: Any = None
    lora_target_modules: Any = None


class _LlamaProps(msgspec.Struct, frozen=True):
    default_generation_settings: dict[str, Any]
    build_info: str = ""


class _OllamaModel(msgspec.Struct, frozen=True):
    name: str
    context_length: int | None = None


class _OllamaModels(msgspec.Struct, frozen=True):
    models: list[_OllamaModel]


def read_version(body: bytes) -> str | None:
    """The `version` that vLLM's /version and Ollama's /api/version tell; None for anything else."""
    told = _decoded(body, _Version)
    return None if told is None else told.version[:_TEXT_SHOWN]


def read_kv_sources(body: bytes, spec: NodeSpec) -> KvSource | None:
    """Where vLLM says that it publishes, each rank's port reckoned already.

    Ranks with their settings (0.32), or a list of ranks, bare or under `sources`.
    """
    sources = _decoded(body, dict[int, _VllmSource]) or {}
    wrapped = _decoded(body, _VllmSources)
    for one in wrapped.sources if wrapped else _decoded(body, list[_VllmSource]) or ():
        sources[one.data_parallel_rank or 0] = one
    told = sources.get(spec.rank or 0)
    if told is None or (spec.rank is None and len(sources) > 1):
        return None
    return _source(told.endpoint, told.replay_endpoint or "", told.topic or "", spec)


def read_server_info(body: bytes, spec: NodeSpec) -> EngineFacts | None:
    """What SGLang is set to; None for anything else."""
    told = _decoded(body, _ServerInfo)
    if told is None or not told.version:
        return None
    ranks = told.dp_size if told.dp_size and told.dp_size > 0 else None
    is_one = spec.rank is not None or ranks in (None, 1)
    return EngineFacts(
        product="SGLang",
        version=told.version[:_TEXT_SHOWN],
        caches=None if told.disable_radix_cache is None else not told.disable_radix_cache,
        reports_cached=told.enable_cache_report,
        takes_priority=told.enable_priority_scheduling,
        kv_tokens=_capacity(told.max_total_num_tokens, 1 if is_one else ranks or 1),
        block_size=told.page_size if told.page_size and told.page_size > 0 else None,
        ranks=ranks,
        max_lora_rank=told.max_lora_rank if isinstance(told.max_lora_rank, int) else None,
        lora_modules=_names(told.lora_target_modules),
        kv_source=_sglang_source(told.kv_events, spec) if is_one else None,
    )


def read_props(body: bytes) -> EngineFacts | None:
    """llama.cpp's build, and the context of one of its slots; None for anything else."""
    told = _decoded(body, _LlamaProps)
    if told is None:
        return None
    context = told.default_generation_settings.get("n_ctx")
    return EngineFacts(
        product="llama.cpp",
        version=told.build_info[:_TEXT_SHOWN],
        caches=True,
        context=context if isinstance(context, int) and context > 0 else None,
    )


def read_running_models(body: bytes, models: frozenset[str]) -> int | None:
    """The shortest context among the models that Ollama has loaded, of those that the node serves."""
    told = _decoded(body, _OllamaModels)
    known = (one.context_length for one in told.models if one.name in models) if told else ()
    return min((context for context in known if context and context > 0), default=None)


def lacking(facts: EngineFacts, spec: NodeSpec) -> tuple[str, ...]:
    """What is not as it should be, each with what mends it. What is unknown is not complained about."""
    notes = []
    if facts.caches is False:
        flag = "without --disable-radix-cache" if spec.engine == "sglang" else "with --enable-prefix-caching"
        notes.append(f"it keeps no prefixes, so every turn is computed from its beginning: start it {flag}")
    if facts.reports_cached is False:
        notes.append(f"its answers do not say what came from the cache: {_reporting(facts, spec)}")
    if spec.rank is None and facts.ranks is not None and facts.ranks > 1:
        notes.append(
            f"{facts.ranks} data-parallel ranks share its address, each with a cache of its own: name them "
            f"as nodes, with `rank` 0 to {facts.ranks - 1}"
        )
    if facts.product == "Ollama" and facts.context is None:
        notes.append(
            "Ollama cuts what is longer than its context without a word, and does not tell how long that "
            "is: set OLLAMA_CONTEXT_LENGTH, and take a version whose /api/ps shows context_length"
        )
    return tuple(notes)


def _reporting(facts: EngineFacts, spec: NodeSpec) -> str:
    if spec.engine == "vllm":
        return "start it with --enable-prompt-tokens-details"
    if spec.engine == "sglang":
        return "start it with --enable-cache-report"
    return f"{facts.product or 'this engine'} cannot, hits are only expected; vLLM, SGLang and llama.cpp can"


def _names(told: Any) -> frozenset[str]:
    return frozenset(map(str, told)) if isinstance(told, list) else frozenset()


def _sglang_source(told: Any, spec: NodeSpec) -> KvSource | None:
    try:
        events = msgspec.convert(told, _SglangEvents)
    except msgspec.ValidationError:
        return None
    host = f"tcp://{events.endpoint_host}"
    replay = events.replay_endpoint_port_base
    endpoint = with_rank(f"{host}:{events.endpoint_port_base}", spec.rank or 0)
    repeats = with_rank(f"{host}:{replay}", spec.rank or 0) if replay else ""
    return _source(endpoint, repeats, events.topic or "", spec)


def _source(endpoint: str, replay: str, topic: str, spec: NodeSpec) -> KvSource | None:
    """The source with the node's own host where the engine says that it listens everywhere.

    Only over TCP: what a node says must not make the gateway open files.
    """
    reached, repeats = _reachable(endpoint, spec), _reachable(replay, spec)
    return KvSource(endpoint=reached, replay=repeats, topic=topic) if reached else None


def _reachable(endpoint: str, spec: NodeSpec) -> str:
    scheme, _, place = endpoint.partition("://")
    host, colon, port = place.rpartition(":")
    if scheme != "tcp" or not colon or not port.isascii() or not port.isdecimal() or is_link_local(host):
        return ""
    if host in _ANYWHERE:
        host = urlsplit(spec.url).hostname or ""
        host = f"[{host}]" if ":" in host else host
    return f"tcp://{host}:{int(port)}" if 0 < int(port) < 65536 else ""


def _capacity(tokens: int | None, ranks: int) -> int | None:
    return tokens * ranks if tokens and tokens > 0 else None


def _decoded(body: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
