"""A configuration file, the environment and `--set` in; one typed record out, or every mistake at once.

Later ones win: defaults of the record · the YAML file · `FRIENDO__SECTION__KEY` · `section.key=value`.
It works for any tree of `msgspec.Struct`s and knows no setting by name.
"""

from gateway.config_file.masking import masked, masked_text
from gateway.config_file.places import ConfigNotFound, config_path
from gateway.config_file.problem import InvalidConfig, Problem
from gateway.config_file.reading import load, load_path

__all__ = [
    "ConfigNotFound",
    "InvalidConfig",
    "Problem",
    "config_path",
    "load",
    "load_path",
    "masked",
    "masked_text",
]
