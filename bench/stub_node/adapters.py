"""The LoRA adapters that a node has loaded: they change what a prompt is cached under, not the answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Adapter:
    """`serial` counts loads on this node: SGLang caches by it, vLLM by name and path."""

    name: str
    path: str
    serial: int


class Adapters:
    """Loaded adapters by name; lost, as on a real node, when the process ends."""

    def __init__(self) -> None:
        self._loaded: dict[str, Adapter] = {}
        self._loads = 0

    def __iter__(self) -> Iterator[Adapter]:
        return iter(list(self._loaded.values()))

    def get(self, name: str) -> Adapter | None:
        return self._loaded.get(name)

    def load(self, name: str, path: str) -> Adapter:
        self._loads += 1
        self._loaded[name] = Adapter(name, path, self._loads)
        return self._loaded[name]

    def unload(self, name: str) -> bool:
        return self._loaded.pop(name, None) is not None


def holds_adapter(path: str) -> bool:
    """Whether a node would find an adapter there: a folder with `adapter_config.json`, or a hub name."""
    return not path.startswith(("/", ".")) or (Path(path) / "adapter_config.json").is_file()
