"""Loading: the layers in their order, then the typed record or every problem."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.config_file.forms import Form
from gateway.config_file.layers import from_environment, from_overrides, laid_over
from gateway.config_file.problem import InvalidConfig, Problem
from gateway.config_file.reader import Reader, decoded
from gateway.config_file.yaml_text import parse

T = TypeVar("T", bound=msgspec.Struct)
_NO_FORMS: Mapping[str, Form] = {}


def read_text(path: Path) -> str:
    """The content of a file of UTF-8 text."""
    return path.read_text(encoding="utf-8")


def load_path(
    struct_type: type[T],
    path: Path,
    env: Mapping[str, str],
    overrides: Sequence[str] = (),
    *,
    forms: Mapping[str, Form] = _NO_FORMS,
) -> T:
    """See `load`; a file that cannot be read is InvalidConfig too."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidConfig([Problem("", f"it cannot be read: {reason}")], str(path)) from error
    try:
        return load(struct_type, text, env, overrides, forms=forms)
    except InvalidConfig as error:
        raise InvalidConfig(error.problems, str(path)) from error


def load(
    struct_type: type[T],
    yaml_text: str,
    env: Mapping[str, str],
    overrides: Sequence[str] = (),
    *,
    forms: Mapping[str, Form] = _NO_FORMS,
    read_file: Callable[[Path], str] = read_text,
) -> T:
    """The settings as a `struct_type`. Raises InvalidConfig with every problem there is.

    `forms` are by the path of their setting, as in `store.url` and `nodes[].url`; defaults are not held
    against them. `read_file` serves the `${file:/path}` placeholders.
    """
    document = parse(yaml_text)
    typed, problems = from_overrides(overrides)
    tree, blocked = laid_over(document.tree, [*from_environment(env), *typed])
    reader = Reader(
        root=struct_type,
        lines=document.lines,
        env=env,
        read_file=read_file,
        forms=forms,
        problems=[*problems, *blocked],
    )
    plain = reader.section(tree, struct_type, "")
    if reader.problems:
        raise InvalidConfig(reader.problems)
    return msgspec.convert(plain, struct_type, dec_hook=decoded)
