"""Stands in for SGLang's kernels for the CPU, which are on no registry.

A dense model without AMX calls one of them. Every other name exists, since it is imported, and raises when
called.
"""

from collections.abc import Callable
from typing import Any


def assign_req_to_token_pool_cpu(
    req_pool_indices: Any, req_to_token: Any, start: Any, end: Any, out_cache_loc: Any, pool_len: int
) -> None:
    """Write each request's next `end - start` cache locations into its row, columns `start:end`."""
    del pool_len  # the row's length is in the tensor
    taken = 0
    for row, first, beyond in zip(req_pool_indices.tolist(), start.tolist(), end.tolist(), strict=True):
        count = beyond - first
        req_to_token[row, first:beyond] = out_cache_loc[taken : taken + count].to(req_to_token.dtype)
        taken += count


def __getattr__(name: str) -> Callable[..., Any]:
    """A kernel that is not here."""
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(f"sgl_kernel.{name} has no stand-in for the CPU")

    missing.__name__ = name
    return missing
