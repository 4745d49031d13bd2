"""What requests about training jobs say, checked field by field."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from gateway.api.conversation_body import Fields, read_metadata, whole_number
from gateway.errors import BadRequest
from gateway.fine_tuning import Wanted
from training.job import Hyperparameters, Job, Method

MAX_PAGE = 100
_MAX_ID = 128
_MAX_KEY = 255
_MAX_SEED = 2**31 - 1
_KNOWN = frozenset(
    {
        *("model", "training_file", "validation_file", "suffix", "seed", "metadata", "method"),
        *("hyperparameters", "integrations", "recipe"),
    }
)
_METHODS: tuple[Method, ...] = ("supervised", "dpo")
# As a folder's name and a model's, without the "--" between a model and its version.
_SUFFIX = re.compile(r"(?!.*--)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILTER = re.compile(r"metadata\[(.+)\]")
_RANGES = {
    "n_epochs": (0, 1000),
    "batch_size": (0, 100_000),
    "learning_rate_multiplier": (0, 1000),
    "beta": (0, 100),
}
"""Each above the first and up to the second."""


def read_wanted(fields: Fields, *, recipe: str) -> Wanted:
    """A job to be created; `recipe`: of one that names none. Raises BadRequest, naming the field."""
    if unknown := sorted(fields.keys() - _KNOWN):
        raise BadRequest(f"unknown parameter: {unknown[0][:64]}", param=unknown[0][:64])
    if fields.get("integrations"):
        raise BadRequest(
            "there are no integrations: leave them out, and read a job's events for its metrics",
            param="integrations",
            code="integrations_unsupported",
        )
    method, given, at = _method(fields)
    suffix = _text(fields, "suffix") or ""
    if suffix and not _SUFFIX.fullmatch(suffix):
        raise BadRequest("suffix is 1 to 64 of A-Z a-z 0-9 . _ - and has no -- in it", param="suffix")
    return Wanted(
        model=_needed(fields, "model"),
        training_file=_needed(fields, "training_file"),
        validation_file=_text(fields, "validation_file") or "",
        recipe=_text(fields, "recipe") or recipe,
        suffix=suffix,
        seed=_seed(fields),
        metadata=read_metadata(fields) or {},
        method=method,
        hyperparameters=_hyperparameters(given, at, method),
    )


def read_idempotency_key(headers: Mapping[str, str]) -> str:
    """Empty where there is none. Raises BadRequest."""
    key = headers.get("idempotency-key", "")
    if len(key) > _MAX_KEY:
        raise BadRequest(f"an Idempotency-Key has at most {_MAX_KEY} characters")
    return key


def read_page(query: Mapping[str, str]) -> tuple[str | None, int]:
    """`after` and `limit`. Raises BadRequest."""
    limit = whole_number(query.get("limit", "20"))
    if limit is None or not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"limit must be between 1 and {MAX_PAGE}", param="limit")
    after = query.get("after") or None
    if after is not None and len(after) > _MAX_ID:
        raise BadRequest("after must be the id of a listed object", param="after")
    return after, limit


def read_filter(query: Mapping[str, str]) -> Callable[[Job], bool]:
    """Which jobs a list shows: those of `metadata[key]=value`; those without any, of `metadata=null`."""
    wanted = {found.group(1): value for name, value in query.items() if (found := _FILTER.fullmatch(name))}
    plain = query.get("metadata")
    if plain is not None and (plain != "null" or wanted):
        raise BadRequest(
            "metadata must be metadata[key]=value, or null and nothing beside it", param="metadata"
        )
    if plain is not None:
        return lambda job: not job.metadata
    return lambda job: all(job.metadata.get(name) == value for name, value in wanted.items())


def _method(fields: Fields) -> tuple[Method, Mapping[str, Any], str]:
    """The method, what is set of it, and where that stands in the body."""
    method, older = fields.get("method"), fields.get("hyperparameters")
    if method is None:
        return "supervised", _object(older, "hyperparameters"), "hyperparameters"
    if older:
        raise BadRequest("give hyperparameters within method, not beside it", param="hyperparameters")
    said = _object(method, "method")
    kind = said.get("type")
    for known in _METHODS:
        if kind == known:
            break
    else:
        raise BadRequest(f"method.type must be one of {', '.join(_METHODS)}", param="method.type")
    if extra := sorted(said.keys() - {"type", known}):
        raise BadRequest(
            f"method.{extra[0][:64]} does not go with type {known}", param=f"method.{extra[0][:64]}"
        )
    own = _object(said.get(known), f"method.{known}")
    if extra := sorted(own.keys() - {"hyperparameters"}):
        raise BadRequest("unknown parameter", param=f"method.{known}.{extra[0][:64]}")
    at = f"method.{known}.hyperparameters"
    return known, _object(own.get("hyperparameters"), at), at


def _hyperparameters(given: Mapping[str, Any], at: str, method: Method) -> Hyperparameters:
    found: dict[str, Any] = {}
    for name, value in given.items():
        param = f"{at}.{name[:64]}"
        if name not in _RANGES or (name == "beta" and method != "dpo"):
            raise BadRequest(f"{param} is not a hyperparameter of {method}", param=param)
        if value is None or value == "auto":
            continue
        low, high = _RANGES[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not low < value <= high:
            raise BadRequest(f'{param} must be "auto" or a number above {low} and up to {high}', param=param)
        if name == "batch_size" and value != int(value):
            raise BadRequest(f'{param} must be "auto" or a whole number', param=param)
        found[name] = int(value) if name == "batch_size" else float(value)
    return Hyperparameters(**found)


def _seed(fields: Fields) -> int | None:
    seed = fields.get("seed")
    if seed is None:
        return None
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _MAX_SEED:
        raise BadRequest(f"seed must be a whole number from 0 to {_MAX_SEED}", param="seed")
    return seed


def _needed(fields: Fields, name: str) -> str:
    text = _text(fields, name)
    if not text:
        raise BadRequest(f"you must provide {name}", param=name, code="missing_required_parameter")
    return text


def _text(fields: Fields, name: str) -> str | None:
    text = fields.get(name)
    if text is not None and (not isinstance(text, str) or len(text) > 2 * _MAX_ID):
        raise BadRequest(f"{name} must be a string of at most {2 * _MAX_ID} characters", param=name)
    return text


def _object(value: Any, param: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{param} must be an object", param=param)
    return value
