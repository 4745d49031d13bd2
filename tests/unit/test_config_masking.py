"""Settings can be shown without what is secret in them."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config_file import masked
from gateway.config_file.masking import is_secret, masked_text


class Node(msgspec.Struct, frozen=True):
    """An item of a list."""

    url: str
    api_key: str = ""
    weight: float = 1.0


class Store(msgspec.Struct, frozen=True):
    """A secret, the name of a file that holds one, and a URL."""

    url: str
    password: str | None
    pepper_file: Path


class Example(msgspec.Struct, frozen=True):
    """A whole tree."""

    max_tokens: int
    store: Store
    nodes: tuple[Node, ...]
    headers: dict[str, str | list[str]]


def test_masked_settings_show_no_secret_and_everything_else() -> None:
    """Texts under secret names and credentials in URLs are hidden; numbers, paths and empty texts are not."""
    settings = Example(
        max_tokens=5,
        store=Store("redis://me:pa/ss@host:6379/0", "pw", Path("/run/pepper")),
        nodes=(Node("http://h/v1?token=abc&x=1", "k"), Node("http://h")),
        headers={"Authorization": "Bearer x", "X-Tokens": ["a", "b"], "Accept": "*/*"},
    )

    expected: dict[str, Any] = {
        "max_tokens": 5,
        "store": {"url": "redis://***@host:6379/0", "password": "***", "pepper_file": "/run/pepper"},
        "nodes": [
            {"url": "http://h/v1?token=***&x=1", "api_key": "***", "weight": 1.0},
            {"url": "http://h", "api_key": "", "weight": 1.0},
        ],
        "headers": {"Authorization": "***", "X-Tokens": ["***", "***"], "Accept": "*/*"},
    }
    assert expected == masked(settings)


@pytest.mark.parametrize("name", ["client_secret", "pepper", "PASSWORD", "hf_token", "api_key", "key"])
def test_a_secret_is_known_by_its_name(name: str) -> None:
    """In either case, as a part of the name."""
    assert is_secret(name)


@pytest.mark.parametrize("name", ["pepper_file", "token_path", "url", "keys_url", "name"])
def test_the_place_of_a_secret_is_none(name: str) -> None:
    """A path has to be seen to be mended."""
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:p@ss@host/0", "redis://***@host/0"),
        ("redis://user@host/0", "redis://***@host/0"),
        ("see amqp://a:b@c/d and http://e", "see amqp://***@c/d and http://e"),
        ("https://h/?API_KEY=1&page=2&sig=3", "https://h/?API_KEY=***&page=2&sig=***"),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_credentials_inside_a_url_are_hidden(text: str, expected: str) -> None:
    """User names and passwords before the host, and secrets by name in the query."""
    assert expected == masked_text(text)
