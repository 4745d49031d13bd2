"""The gateway's settings for a command, and the options that stand for some of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.config_file import config_path, load, load_path, masked_text
from gateway.config_file.forms import Form
from gateway.errors import BadOption
from gateway.settings import FORMS, Settings


def read_settings(path: Path | None, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Settings:
    """What is in force. Raises ConfigNotFound, or InvalidConfig with every mistake."""
    return load_path(Settings, path or config_path(env), env, overrides, forms=FORMS)


def settings_without_file(env: Mapping[str, str], overrides: Sequence[str]) -> Settings:
    """Defaults, the environment and the command line. Raises InvalidConfig."""
    return load(Settings, "", env, overrides, forms=FORMS)


def checked(option: str, form: Form, value: object) -> None:
    """Raise `BadOption` unless the option's value fits."""
    if wrong := form(value):
        raise BadOption(f"{option}: {wrong}, got {masked_text(str(value))!r}")
