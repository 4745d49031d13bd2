"""`${NAME}` and `${file:/path}` inside values: how a secret gets into the settings without being in the file.

`$${` stands for `${` itself. What was put in is not looked at again.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE = "file:"


class MissingSecret(Exception):
    """What a placeholder names is not there; the text names it and never holds a secret."""


def has_placeholder(text: str) -> bool:
    """Whether `replaced` would change the text, or complain about it."""
    return "${" in text


def replaced(text: str, env: Mapping[str, str], read_file: Callable[[Path], str]) -> str:
    """The text with every placeholder replaced; of a file, without its last line break.

    Raises MissingSecret.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "${"
        if name.startswith(_FILE):
            return _content(Path(name.removeprefix(_FILE)), read_file)
        if not _VARIABLE.fullmatch(name):
            raise MissingSecret(
                f"${{{name}}} is neither ${{NAME}} nor ${{file:/path}}; write $${{ for a plain ${{"
            )
        if name not in env:
            raise MissingSecret(f"needs the environment variable {name}, which is not set")
        return env[name]

    return _PLACEHOLDER.sub(value, text)


def _content(path: Path, read_file: Callable[[Path], str]) -> str:
    try:
        return read_file(path).rstrip("\r\n")
    except OSError as error:
        raise MissingSecret(f"needs the file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise MissingSecret(f"needs the file {path}, which is not UTF-8 text") from error
