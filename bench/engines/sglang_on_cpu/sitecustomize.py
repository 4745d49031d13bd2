"""Lets SGLang's build for CUDA run on a CPU: what it expects at import is put there the moment before.

Python imports this by its name in every process that finds its folder first on PYTHONPATH; SGLang starts
several. Nothing of SGLang's own files is changed.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

TAKES_PIN_MEMORY = ("tensor", "empty", "zeros", "ones", "full", "arange")
BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_operators() -> None:
    """Operators whose schemas torchvision looks up; its library does not load without CUDA."""
    import torch  # noqa: PLC0415 - not before somebody wants it: every small process of SGLang comes by here

    library = torch.library.Library("torchvision", "DEF")
    library.define(f"nms{BOXES}")
    library.define(f"qnms{BOXES}")
    KEPT.append(library)  # what it declares goes with it


def ignore_pinning() -> None:
    """Memory is pinned for copies to a GPU; without one, asking for it is an error. LoRA asks."""
    import torch  # noqa: PLC0415 - see above

    def unpinned(tensor: Any, *_args: Any, **_kwargs: Any) -> Any:
        return tensor

    torch.Tensor.pin_memory = unpinned
    for name in TAKES_PIN_MEMORY:
        setattr(torch, name, without_pinning(getattr(torch, name)))


def without_pinning(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same, deaf to `pin_memory`."""

    @functools.wraps(make)
    def deaf(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Any:
        del pin_memory
        return make(*args, **kwargs)

    return deaf


KEPT: list[Any] = []
BEFORE: dict[str, Callable[[], None]] = {"torchvision": declare_operators, "sglang": ignore_pinning}


class Forerunner:
    """First of those that are asked where a module is: it knows of none, and prepares for two."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Part of the protocol of `sys.meta_path`."""
        del path, target
        prepare = BEFORE.pop(name, None)
        if prepare is not None:
            prepare()


sys.meta_path.insert(0, Forerunner)
