"""What must not be printed: values of settings that are secrets by name, and credentials inside URLs."""

import re
from typing import Any

import msgspec

MASK = "***"
_SECRET_NAME = re.compile(r"secret|pepper|passw|token|credential|authorization|key$", re.IGNORECASE)
_PUBLIC_ENDING = re.compile(r"_(file|path|env)$", re.IGNORECASE)
# Up to the last @ before a blank: a password may itself hold an unescaped / or @.
_USER_INFO = re.compile(r"(?<=://)[^\s]*(?=@)")
_QUERY_SECRET = re.compile(
    r"(?<=[?&])([^=&\s]*(?:secret|passw|token|key|sig)[^=&\s]*)=[^&\s]+", re.IGNORECASE
)


def masked(settings: msgspec.Struct) -> dict[str, Any]:
    """The settings as plain data that may be shown. Numbers and switches are never secret, texts may be."""
    plain = msgspec.to_builtins(settings, str_keys=True, order="deterministic", enc_hook=str)
    shown: dict[str, Any] = _shown(plain, secret=False)
    return shown


def masked_text(text: str) -> str:
    """The text without the credentials of the URLs in it."""
    return _QUERY_SECRET.sub(rf"\1={MASK}", _USER_INFO.sub(MASK, text))


def is_secret(name: str) -> bool:
    """Whether a text under this name is a secret, going by the name alone."""
    return bool(_SECRET_NAME.search(name)) and not _PUBLIC_ENDING.search(name)


def _shown(value: Any, *, secret: bool) -> Any:
    match value:
        case dict():
            return {key: _shown(item, secret=secret or is_secret(key)) for key, item in value.items()}
        case list() | tuple():
            return [_shown(item, secret=secret) for item in value]
        case str() if value:
            return MASK if secret else masked_text(value)
        case _:
            return value
