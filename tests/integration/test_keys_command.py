"""`friendo keys list` through a pipe and on a terminal, over a real Valkey."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).parents[2]
PEPPER = "p" * 32
# A bound, not an expectation.
WITHIN_S = 60


class Server(Protocol):
    """The Valkey of one test, as tests/conftest.py starts it."""

    url: str


@pytest.fixture
def environment(valkey: Server) -> dict[str, str]:
    """A terminal's usual width, and colours asked for, as CI systems do."""
    widths = {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm"}
    return {**os.environ, **widths, "FRIENDO_KEY_PEPPER": PEPPER, "FRIENDO__STORE__URL": valkey.url}


@pytest.fixture
def key_id(environment: dict[str, str]) -> str:
    """The id of the one key there is."""
    names = ("--tenant", "acme", "--name", "the companion's app", "--model", "a", "--model", "b")
    text = friendo(environment, "create", *names)
    return text.split("-")[1]


def friendo(environment: dict[str, str], *arguments: str) -> str:
    """What the command prints into a pipe."""
    command = [sys.executable, "-m", "gateway", "keys", *arguments]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=True
    )
    return done.stdout


def test_a_pipe_gets_one_line_for_each_key_with_the_id_first(
    environment: dict[str, str], key_id: str
) -> None:
    """Fields are separated by tabs, without frames and colours, so that `cut -f1` gives the ids."""
    listed = friendo(environment, "list")

    fields = listed.removesuffix("\n").split("\t")
    assert [key_id, "acme", "the companion's app", "inference", "a b"] == fields[:5]
    assert ["never", "active"] == fields[6:]


def test_a_terminal_shows_the_whole_id(environment: dict[str, str], key_id: str) -> None:
    """In a table, as wide as the terminal says."""
    ours, its = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        command = [sys.executable, "-m", "gateway", "keys", "list"]
        done = subprocess.run(command, env=environment, cwd=ROOT, stdout=its, timeout=WITHIN_S, check=True)
        shown = terminal.read(65536).decode()
        os.close(its)

    assert done.returncode == 0
    assert key_id in shown
    assert "│" in shown
