"""The pepper comes from the environment or the settings, and is never short."""

import pytest

from gateway.keys.errors import BadPepper
from gateway.keys.pepper import read_pepper


def test_the_environment_comes_before_the_settings() -> None:
    """Where both are there, FRIENDO_KEY_PEPPER counts."""
    assert read_pepper({"FRIENDO_KEY_PEPPER": "e" * 32}, configured="s" * 32) == b"e" * 32
    assert read_pepper({}, configured="s" * 32) == b"s" * 32


def test_a_missing_pepper_says_how_to_make_one() -> None:
    """The text holds a command and both places where the result may go."""
    with pytest.raises(BadPepper) as missing:
        read_pepper({})

    text = str(missing.value)
    assert "secrets.token_urlsafe(32)" in text
    assert "FRIENDO_KEY_PEPPER" in text
    assert "${file:/path/of/it}" in text


def test_a_short_pepper_is_refused_and_not_shown() -> None:
    """Its length is told, itself it is not; the settings do not step in for it."""
    with pytest.raises(BadPepper, match="has 9 bytes, it needs 32") as short:
        read_pepper({"FRIENDO_KEY_PEPPER": "too-short"}, configured="s" * 32)

    assert "too-short" not in str(short.value)
