"""YAML as LLaMA-Factory's reader (OmegaConf) understands it: text to values and back.

Three traps lie between YAML readers, and each is closed here. `1e-4` is a number to OmegaConf and a text to
PyYAML: it is read as a number. `no` is False to both, though LLaMA-Factory wants the word: it is read as
False, and the checks say to quote it. `${...}` is an interpolation to OmegaConf: it is refused.
"""

import json
import math
import re
from collections.abc import Mapping

import yaml

from training.recipes.faults import BadRecipe

MAX_BYTES = 100_000

_NUMBER = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)")
_SAYS_TEXT = "tag:yaml.org,2002:str"
_WIDTH = 1_000_000


def parsed(text: str, *, name: str) -> dict[str, object]:
    """The document's values. Raises BadRecipe: not YAML, not a mapping, a key twice, too large, aliases."""
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise BadRecipe(name, (f"is larger than {MAX_BYTES} bytes",))
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _survey(node, name)
        document = yaml.SafeLoader("").construct_document(node) if node is not None else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise BadRecipe(name, (f"is not YAML: {' '.join(str(error).split())}",)) from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise BadRecipe(name, ("must be lines of `key: value`",))
    return document


def _survey(root: yaml.Node | None, name: str) -> None:
    """Refuse keys that stand twice (the last would win in silence), and see numbers where OmegaConf does."""
    seen: set[int] = set()
    todo = [] if root is None else [root]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            raise BadRecipe(name, ("has an alias (*name); write the value out",))
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            twice = sorted({str(key) for key in keys if keys.count(key) > 1})
            if twice:
                raise BadRecipe(name, (f"has {', '.join(twice)} twice",))
            todo.extend(part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            todo.extend(node.value)
        elif (
            isinstance(node, yaml.ScalarNode)
            and node.tag == _SAYS_TEXT
            and not node.style
            and _NUMBER.fullmatch(node.value)
        ):
            node.tag, node.value = "tag:yaml.org,2002:float", repr(float(node.value.replace("_", "")))


def written(values: Mapping[str, object]) -> str:
    """One line `key: value` for each; texts are always quoted, so that no reader mistakes one."""
    return "".join(f"{key}: {_value(value)}\n" for key, value in values.items())


def _value(value: object) -> str:
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=_WIDTH).rstrip("\n")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(part) for part in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_value(str(key))}: {_value(part)}" for key, part in value.items()) + "}"
    raise TypeError(f"{type(value).__name__} has no place in a recipe")


def _number(value: float) -> str:
    """With a dot, which every reader of YAML takes for a number."""
    if not math.isfinite(value):
        raise TypeError("infinite and undefined numbers have no place in a recipe")
    mantissa, letter, exponent = repr(value).partition("e")
    return (mantissa if "." in mantissa else mantissa + ".0") + letter + exponent
