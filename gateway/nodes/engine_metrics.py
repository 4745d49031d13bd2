"""What an engine's metrics say of its load and of its cache. An absent gauge is unknown, not zero. Pure."""

import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from gateway.nodes.dialect import Dialect
from gateway.routing.node import EngineFacts

MOST = 1_000_000
"""No queue is longer and no cache block larger: a number beyond is no measurement."""
_MOST_TOKENS = 10**12
_STARTED = "process_start_time_seconds"
"""As every Prometheus client in Python calls it."""

_SAMPLE = re.compile(rb"^([a-zA-Z_:][\w:]*)(?:\{([^}\n]*)\})? ([^\s]+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_SWITCHES = {"true": True, "false": False}


class Load(msgspec.Struct, frozen=True):
    """A node's load; None where it says nothing. Ranks: queues add up, the fullest cache counts."""

    waiting: int | None = None
    working: int | None = None
    kv_usage: float | None = None
    block_size: int | None = None
    prompt_tokens: int | None = None
    """Of all prompts since the engine started."""
    started_at: float | None = None
    """When its process began, in Unix seconds by its own clock."""
    progress: int | None = None
    """A number that is another one after every step that is computed."""


class _Rank(msgspec.Struct, frozen=True):
    dp_rank: int = 0
    num_waiting_reqs: int | None = None
    num_running_reqs: int | None = None
    token_usage: float | None = None


class _Loads(msgspec.Struct, frozen=True):
    loads: list[_Rank]


class _Sample(msgspec.Struct, frozen=True):
    labels: Mapping[str, str]
    value: float


def read_load(metrics: bytes, dialect: Dialect, rank: int | None = None) -> Load:
    """The load in a Prometheus text, of one data-parallel rank or of all of them."""
    samples = _samples(metrics, dialect, rank)
    config = samples.get(dialect.config, ())
    size = _first(samples, dialect.block_size) or [_integer(one.labels, "block_size") for one in config]
    waiting, usage = _first(samples, dialect.waiting), _first(samples, dialect.kv_usage)
    counted, working = _first(samples, dialect.prompt_tokens), _first(samples, dialect.working)
    started = samples.get(_STARTED, [])
    steps = [sum(one.value for one in samples.get(name, [])) for name in dialect.progress]
    tells = steps and all(name in samples for name in dialect.progress)
    return Load(
        waiting=_between(0, sum(waiting), MOST) if waiting else None,
        working=_between(0, sum(working), MOST) if working else None,
        kv_usage=max(usage) if usage and 0 <= max(usage) <= 1 else None,
        block_size=_between(1, size[0], MOST) if size else None,
        prompt_tokens=_between(0, sum(counted), 2**62) if counted else None,
        # Of several processes behind one address none is the engine's.
        started_at=started[0].value if len(started) == 1 else None,
        progress=_between(0, sum(steps), 2**62) if tells else None,
    )


def read_loads(body: bytes, rank: int | None = None) -> Load | None:
    """The load as SGLang's `/v1/loads` tells it; None for anything else."""
    try:
        listed = msgspec.json.decode(body, type=_Loads).loads
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    ranks = [one for one in listed if rank is None or one.dp_rank == rank]
    waiting = [one.num_waiting_reqs for one in ranks if one.num_waiting_reqs is not None]
    working = [one.num_running_reqs for one in ranks if one.num_running_reqs is not None]
    usage = [one.token_usage for one in ranks if one.token_usage is not None]
    return Load(
        waiting=_between(0, sum(waiting), MOST) if waiting else None,
        working=_between(0, sum(working), MOST) if working else None,
        kv_usage=max(usage) if usage and 0 <= max(usage) <= 1 else None,
    )


def read_cache(metrics: bytes, dialect: Dialect, rank: int | None = None) -> EngineFacts:
    """What the metrics say of the cache's settings and size, and of how many ranks there are."""
    samples = _samples(metrics, dialect, rank)
    config = samples.get(dialect.config, ())
    sizes = _first(samples, dialect.capacity) or [_capacity(one.labels) for one in config]
    known = [size for size in sizes if size]
    switches = {_SWITCHES.get(one.labels.get("enable_prefix_caching", "").lower()) for one in config}
    every = _samples(metrics, dialect, None).values()
    ranks = {one.labels[dialect.rank_label] for found in every for one in found if _is_ranked(one, dialect)}
    return EngineFacts(
        caches=switches.pop() if len(switches) == 1 else None,
        kv_tokens=_between(1, sum(known), _MOST_TOKENS) if known and len(known) == len(sizes) else None,
        ranks=len(ranks) or None,
    )


def _samples(metrics: bytes, dialect: Dialect, rank: int | None) -> dict[str, list[_Sample]]:
    """The samples that somebody reads, by name; of other ranks none, where the engine tells them apart."""
    wanted = {name.encode() for name in _names(dialect)}
    found: dict[str, list[_Sample]] = {}
    for name, text, value in _SAMPLE.findall(metrics):
        if name in wanted and (number := _number(value)) is not None:
            labels = dict(_LABEL.findall(text.decode(errors="replace")))
            if rank is None or labels.get(dialect.rank_label, str(rank)) == str(rank):
                found.setdefault(name.decode(), []).append(_Sample(labels, number))
    return found


def _names(dialect: Dialect) -> Iterable[str]:
    yield from dialect.waiting
    yield from dialect.working
    yield from dialect.kv_usage
    yield from dialect.prompt_tokens
    yield from dialect.progress
    yield from dialect.block_size
    yield from dialect.capacity
    yield _STARTED
    if dialect.config:
        yield dialect.config


def _first(samples: Mapping[str, list[_Sample]], names: tuple[str, ...]) -> list[float]:
    """The values under the first name that there are any of: names are given newest first."""
    found = next((samples[name] for name in names if name in samples), [])
    return [one.value for one in found]


def _is_ranked(sample: _Sample, dialect: Dialect) -> bool:
    return bool(dialect.rank_label) and dialect.rank_label in sample.labels


def _capacity(labels: Mapping[str, str]) -> float:
    """Tokens: newer vLLM says so, older says how many blocks of which size."""
    told = _integer(labels, "kv_cache_size_tokens")
    return told or _integer(labels, "num_gpu_blocks") * _integer(labels, "block_size")


def _integer(labels: Mapping[str, str], name: str) -> float:
    text = labels.get(name, "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0.0


def _number(text: bytes) -> float | None:
    """The sample, if it is a number that can be counted with: gauges may be NaN."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _between(low: float, value: float, high: float) -> int | None:
    """The number as an integer, if it can be one: sums of finite numbers may be infinite."""
    return int(value) if low <= value <= high else None
