"""Settings from the environment and the command line, laid over those of the file."""

from collections.abc import Mapping, Sequence

import msgspec

from gateway.config_file.problem import Problem
from gateway.config_file.yaml_text import scalar_or_flow

PREFIX = "friendo__"


class Given(msgspec.Struct, frozen=True):
    """A value as somebody typed it outside of the file; what it means depends on the setting's type."""

    text: str
    source: str


class Assignment(msgspec.Struct, frozen=True):
    """One setting by its path, and its value."""

    path: tuple[str, ...]
    given: Given


def from_environment(env: Mapping[str, str]) -> list[Assignment]:
    """`FRIENDO__SECTION__KEY=value` in either case; whole sections before the keys inside them."""
    found = []
    for name, value in env.items():
        if name.lower().startswith(PREFIX):
            path = tuple(name.lower().removeprefix(PREFIX).split("__"))
            found.append(Assignment(path, Given(value, name)))
    return sorted(found, key=lambda assignment: assignment.path)


def from_overrides(overrides: Sequence[str]) -> tuple[list[Assignment], list[Problem]]:
    """`section.key=value`, the later of two winning."""
    found, problems = [], []
    for override in overrides:
        name, equals, value = override.partition("=")
        if equals and name.strip():
            source = f"set by {name.strip()}="
            found.append(Assignment(tuple(name.strip().split(".")), Given(value, source)))
        else:
            shown = name.strip() or "(nothing)"
            problems.append(Problem(shown, "a setting is given as section.key=value", "command line"))
    return found, problems


def laid_over(
    tree: Mapping[object, object], assignments: Sequence[Assignment]
) -> tuple[dict[object, object], list[Problem]]:
    """The tree with every assignment made in order; `tree` itself stays as it is.

    Names are matched to the tree's in either case. A path that leads through something other than a section
    is a problem.
    """
    result, problems = dict(tree), []
    for assignment in assignments:
        section = result
        *parents, last = assignment.path
        for depth, name in enumerate(parents, start=1):
            key = _spelled(section, name)
            inner = _opened(section.get(key))
            if inner is None:
                path, given = ".".join(assignment.path[:depth]), assignment.given
                problems.append(Problem(path, "is no section; set it as a whole, like [...]", given.source))
                break
            section[key] = section = inner
        else:
            section[_spelled(section, last)] = assignment.given
    return result, problems


def _opened(value: object) -> dict[object, object] | None:
    """A copy of a section that can be added to; None for what is no section."""
    if isinstance(value, Given):
        value = scalar_or_flow(value.text)
    if value is None:
        return {}
    return dict(value) if isinstance(value, dict) else None


def _spelled(section: Mapping[object, object], name: str) -> object:
    return next((key for key in section if isinstance(key, str) and key.lower() == name.lower()), name)
