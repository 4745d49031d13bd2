"""What a type lets a value look like: enough of annotations to walk a tree of settings beside them."""

import collections.abc
import enum
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union

import msgspec

_SEQUENCES = (list, set, frozenset, collections.abc.Sequence, collections.abc.Set, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping)


class Section(msgspec.Struct, frozen=True):
    """A record with known names."""

    type: type[msgspec.Struct]


class Table(msgspec.Struct, frozen=True):
    """A mapping with free names and values of one type."""

    item: Any


class Row(msgspec.Struct, frozen=True):
    """A list with items of one type."""

    item: Any


Shape = Section | Table | Row


def shape_of(wanted: Any, value: object) -> Shape | None:
    """How to go on inside `value`; None where it has to be taken as a whole."""
    kinds = alternatives(wanted)
    match value:
        case None:
            sections = [kind for kind in kinds if _is_struct(kind)]
            return Section(sections[0]) if len(kinds) == len(sections) == 1 else None
        case dict():
            return _section(kinds, value) or _first(_MAPPINGS, kinds, Table)
        case list():
            return _first(_SEQUENCES, kinds, Row) or _variadic(kinds)
        case _:
            return None


def alternatives(wanted: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone; `Annotated` left out."""
    origin = typing.get_origin(wanted)
    if origin is typing.Annotated:
        return alternatives(typing.get_args(wanted)[0])
    if origin in (Union, types.UnionType):
        return tuple(kind for member in typing.get_args(wanted) for kind in alternatives(member))
    return (wanted,)


def choices(wanted: Any) -> tuple[str, ...]:
    """Every value that the type lists by name."""
    found: list[str] = []
    for kind in alternatives(wanted):
        if typing.get_origin(kind) is Literal:
            found += map(str, typing.get_args(kind))
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            found += (str(member.value) for member in kind)
    return tuple(found)


def may_be_text(wanted: Any) -> bool:
    """Whether the type could hold a secret; numbers and listed names cannot."""
    listed = (int, float, bool, type(None))
    return any(kind not in listed and not choices(kind) for kind in alternatives(wanted))


def names(section: type[msgspec.Struct]) -> tuple[str, ...]:
    """The keys that the record takes, as they are written in the file."""
    tag = section.__struct_config__.tag_field
    fields = tuple(field.encode_name for field in msgspec.structs.fields(section))
    return (tag, *fields) if tag is not None else fields


def all_paths(section: type[msgspec.Struct], path: str = "") -> tuple[str, ...]:
    """The path of every setting below a record, as far as its names are known."""
    found: list[str] = []
    for field in msgspec.structs.fields(section):
        inner = f"{path}.{field.encode_name}" if path else field.encode_name
        found.append(inner)
        for kind in alternatives(field.type):
            if _is_struct(kind) and kind is not section:
                found += all_paths(kind, inner)
    return tuple(found)


def _section(kinds: tuple[Any, ...], value: dict[object, object]) -> Section | None:
    sections = [kind for kind in kinds if _is_struct(kind)]
    if len(sections) > 1:
        sections = [kind for kind in sections if _has_tag(kind, value)]
    return Section(sections[0]) if len(sections) == 1 else None


def _has_tag(section: type[msgspec.Struct], value: dict[object, object]) -> bool:
    config = section.__struct_config__
    return config.tag_field is not None and value.get(config.tag_field) == config.tag


def _first(
    origins: tuple[object, ...], kinds: tuple[Any, ...], shape: Callable[[Any], Table | Row]
) -> Table | Row | None:
    for kind in kinds:
        if kind is Any:
            return shape(Any)
        if kind in origins or typing.get_origin(kind) in origins:
            return shape((Any, *typing.get_args(kind))[-1])
    return None


def _variadic(kinds: tuple[Any, ...]) -> Row | None:
    for kind in kinds:
        arguments = typing.get_args(kind)
        if kind is tuple:
            return Row(Any)
        if typing.get_origin(kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return Row(arguments[0])
    return None


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
