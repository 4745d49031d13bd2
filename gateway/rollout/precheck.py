"""Whether engines can serve an adapter, by its `adapter_config.json`, before anything is loaded. Pure.

Engines refuse some of these with a status 500 after reading all weights, and name no node. Here each has its
reason.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

CONFIG = "adapter_config.json"
MAX_CONFIG = 1024 * 1024
_SERVED_MODULES = frozenset({"classifier", "score"})


class Host(msgspec.Struct, frozen=True):
    """What is known of a node that shall serve the adapter. None and empty are unknown."""

    name: str
    max_rank: int | None = None
    modules: frozenset[str] = frozenset()
    """What it takes adapters of."""
    roots: Mapping[str, str] = {}
    """By model: its own name or path, as the node tells it."""


class _Config(msgspec.Struct, frozen=True):
    peft_type: Any = None
    r: Any = None
    rank_pattern: Any = None
    use_dora: Any = None
    modules_to_save: Any = None
    target_modules: Any = None
    base_model_name_or_path: Any = None
    bias: Any = None


def problems(config: bytes, hosts: Iterable[Host], *, model: str, base: str = "") -> list[str]:
    """Every reason not to load it; none: nothing known speaks against it.

    `model`: what nodes are asked for without it. `base`: the name that its config shall give for that model;
    empty: compared with what nodes tell.
    """
    try:
        told = msgspec.json.decode(config, type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [f"{CONFIG} cannot be read: {error}"]
    found = [*_own(told)]
    for host in hosts:
        found += [
            f"node {host.name}: {problem}" for problem in _on(told, host, base or host.roots.get(model, ""))
        ]
    return found


def _own(told: _Config) -> Iterable[str]:
    if told.peft_type not in (None, "LORA"):
        yield f"it is {told.peft_type}; engines serve LORA only"
    if not isinstance(told.r, int) or told.r < 1:
        yield "it names no rank (r)"
    if told.use_dora:
        yield "it was trained with DoRA, which engines do not serve: train with use_dora: false, or merge it"
    extra = told.modules_to_save
    if extra and not (isinstance(extra, list) and _SERVED_MODULES.issuperset(map(str, extra))):
        yield (
            f"it has whole modules beside the adapter (modules_to_save: {extra!r}), which engines do not "
            "serve: train without them, or merge it"
        )
    if told.bias not in (None, "none"):
        yield f"it trains biases (bias: {told.bias!r}), which engines do not serve"
    if not told.target_modules:
        yield "it names no target_modules"


def _on(told: _Config, host: Host, wanted: str) -> Iterable[str]:
    rank = _rank(told)
    if host.max_rank is not None and rank > host.max_rank:
        yield f"rank {rank} is above its {host.max_rank}: start it with --max-lora-rank {rank}"
    modules = told.target_modules if isinstance(told.target_modules, list) else []
    missing = {str(one).rpartition(".")[2] for one in modules} - host.modules
    if host.modules and "all" not in host.modules and missing:
        yield f"it takes no adapters of {', '.join(sorted(missing))}: name them in --lora-target-modules"
    named = told.base_model_name_or_path
    if wanted and isinstance(named, str) and named and _last(named) != _last(wanted):
        yield (
            f"the adapter is of {named}, the node serves {wanted}: name the adapter's model with "
            "base_model if they are the same"
        )


def _rank(told: _Config) -> int:
    ranks = told.rank_pattern.values() if isinstance(told.rank_pattern, dict) else ()
    return max((one for one in (told.r, *ranks) if isinstance(one, int)), default=0)


def _last(name: str) -> str:
    """A model's own name, without who published it or where it lies."""
    return name.rstrip("/").rpartition("/")[2].casefold()
