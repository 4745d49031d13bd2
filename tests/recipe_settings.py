"""Made-up settings of the right types, for tests of recipes."""

import types
from collections.abc import Mapping
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from training.recipes.model_settings import DataSettings, MethodSettings, ModelSettings
from training.recipes.run_settings import RunSettings

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(
    lambda text: "${" not in text
)
_TRICKY = st.sampled_from(
    ["no", "null", "1e-4", "~", "yes", "1", "a: b", "# x", "'\"", "0x1", "\u2028", "\x7f"]
)


def settings_values() -> st.SearchStrategy[dict[str, object]]:
    """Any subset of the settings, each with a value that its type allows."""
    return st.fixed_dictionaries({}, optional=_strategies())


def few_settings(most: int) -> st.SearchStrategy[dict[str, object]]:
    """At most so many of them: of many, some always exclude each other."""
    all_of_them = _strategies()
    names = st.lists(st.sampled_from(sorted(all_of_them)), unique=True, max_size=most)
    return names.flatmap(lambda some: st.fixed_dictionaries({name: all_of_them[name] for name in some}))


def _strategies() -> Mapping[str, st.SearchStrategy[object]]:
    return {
        name: _of(hint)
        for part in (ModelSettings, DataSettings, MethodSettings, RunSettings)
        for name, hint in get_type_hints(part, include_extras=True).items()
    }


def _of(hint: object) -> st.SearchStrategy[object]:
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        return st.one_of(*[_of(part) for part in get_args(hint) if part is not type(None)])
    if origin is Literal:
        return st.sampled_from(get_args(hint))
    if origin is Annotated:
        return _within(*get_args(hint))
    if origin is dict:
        return st.dictionaries(_TEXT, st.booleans() | _number(-1e6, 1e6) | _TEXT, max_size=3)
    return _within(hint, msgspec.Meta())


def _within(kind: object, meta: msgspec.Meta) -> st.SearchStrategy[object]:
    if kind is bool:
        return st.booleans()
    if kind is str:
        return _TEXT | _TRICKY
    if kind is int:
        least = -(2**31) if meta.ge is None else int(meta.ge)
        return st.integers(least, 2**31)
    least = meta.ge if meta.ge is not None else meta.gt if meta.gt is not None else -1e6
    most = meta.le if meta.le is not None else meta.lt if meta.lt is not None else 1e6
    return _number(float(least), float(most)).filter(
        lambda value: (meta.gt is None or value > meta.gt) and (meta.lt is None or value < meta.lt)
    )


def _number(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most, allow_nan=False)
