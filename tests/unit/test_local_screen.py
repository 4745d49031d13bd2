"""What `friendo up` prints, with and without a terminal."""

import ast
import io

from rich.console import Console

from gateway.local import welcome
from gateway.local.screen import Screen

URL = "http://127.0.0.1:7860"


def printed(*, is_terminal: bool) -> str:
    out = io.StringIO()
    screen = Screen(Console(file=out, force_terminal=is_terminal, width=80))
    screen.open(("valkey", "node-1"))
    screen.loading("valkey")
    screen.loaded("valkey")
    screen.close()
    screen.welcome(addresses={"gateway": f"{URL}/v1"}, url=URL)
    return out.getvalue()


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    """A log of it can be read: no colours, no cursor movements."""
    text = printed(is_terminal=False)

    assert "\x1b" not in text
    assert "valkey     loading\nvalkey     ready in 0.0 s\n" in text


def test_examples_are_printed_word_for_word_on_a_narrow_screen() -> None:
    """They are there to be copied: no frame and no line break of ours may get into them."""
    text = printed(is_terminal=False)

    assert welcome.sdk_example(URL) in text
    assert welcome.curl_example(URL) in text


def test_a_terminal_shows_progress_and_a_panel() -> None:
    """A person sees what loads and, in a frame, what is running."""
    text = printed(is_terminal=True)

    assert "\x1b" in text
    assert "Friendo is running" in text


def test_the_sdk_example_is_five_lines_of_python() -> None:
    """Short enough to be pasted and read."""
    example = welcome.sdk_example(URL)

    assert len(example.splitlines()) == 5
    assert isinstance(ast.parse(example), ast.Module)
