"""YAML text into plain data, with the line of every setting, and without keys that are silently lost."""

import msgspec
import yaml

from gateway.config_file.problem import InvalidConfig, Problem

MAX_DEPTH = 32


class Document(msgspec.Struct, frozen=True):
    """A file's content. `lines` has the line of each setting by its path."""

    tree: dict[object, object]
    lines: dict[str, int]


def parse(text: str) -> Document:
    """Read a whole file; an empty one is an empty section. Raises InvalidConfig."""
    lines: dict[str, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None and (problems := _survey(root, "", lines, 0)):
            raise InvalidConfig(problems)
        tree = loader.construct_document(root) if root is not None else None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise InvalidConfig([_syntax(error)]) from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise InvalidConfig([Problem("", "the file has to be a mapping of sections, like `server: {...}`")])
    return Document(tree, lines)


def scalar_or_flow(text: str) -> object:
    """One value from an environment variable or the command line: a scalar, `[...]` or `{...}`.

    What YAML cannot read, or reads as a block (`a: b`), is meant as text.
    """
    try:
        value: object = yaml.SafeLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError):
        return text
    is_flow = text.lstrip()[:1] in ("[", "{")
    return text if isinstance(value, dict | list) and not is_flow else value


def joined(path: str, key: object) -> str:
    """The path of a setting inside the section at `path`."""
    return f"{path}.{key}" if path else str(key)


def _survey(node: yaml.Node, path: str, lines: dict[str, int], depth: int) -> list[Problem]:
    """Note the lines below `node`; keys that occur twice and absurd nesting are problems."""
    if depth > MAX_DEPTH:
        return [Problem(path, f"is nested more than {MAX_DEPTH} deep")]
    problems: list[Problem] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            inner = f"{path}[{index}]"
            lines.setdefault(inner, item.start_mark.line + 1)
            problems += _survey(item, inner, lines, depth + 1)
    elif isinstance(node, yaml.MappingNode):
        seen: set[object] = set()
        for key, item in node.value:
            inner, line = joined(path, key.value), key.start_mark.line + 1
            if inner in seen:
                problems.append(Problem(inner, f"is set twice, first in line {lines[inner]}", f"line {line}"))
            seen.add(inner)
            lines.setdefault(inner, line)
            problems += _survey(item, inner, lines, depth + 1)
    return problems


def _syntax(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    source = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    reason = " ".join(str(getattr(error, "problem", None) or error).split())
    return Problem("", f"not YAML: {reason}", source)
