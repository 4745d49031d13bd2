"""What a node lists as its models, in the forms of vLLM, SGLang, llama.cpp and Ollama. Pure."""

from collections.abc import Iterable
from typing import Any

import msgspec

_SHOWN = 8
_NAME_SHOWN = 80


class Model(msgspec.Struct, frozen=True):
    """A model or an adapter, by the name that requests use."""

    id: str
    max_model_len: int | None = None
    meta: Any = None
    root: Any = None
    parent: Any = None
    """The model that an adapter belongs to."""

    def context(self) -> int:
        """Tokens that prompt and answer may have together, as vLLM, SGLang or llama.cpp say; else 0."""
        own = self.meta.get("n_ctx") if isinstance(self.meta, dict) else None
        return self.max_model_len or (own if isinstance(own, int) else 0)


class _Models(msgspec.Struct, frozen=True):
    data: list[Model]


def read_models(body: bytes) -> list[Model]:
    """The models in the engine's order. Raises ValueError, with what is wrong, for anything else."""
    try:
        return msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def listed(names: Iterable[str]) -> str:
    """Some of the names, in order."""
    every = sorted(names)
    shown = ", ".join(name[:_NAME_SHOWN] for name in every[:_SHOWN])
    return f"{shown} and {len(every) - _SHOWN} more" if len(every) > _SHOWN else shown
