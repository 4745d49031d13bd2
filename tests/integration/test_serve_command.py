"""`friendo serve` as a user types it wrongly: one line on standard error, exit code 1, nothing started."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.local.preflight import DataFolder

ROOT = Path(__file__).parents[2]
# A bound, not an expectation.
WITHIN_S = 60
NODE = ("--node", "vllm=http://127.0.0.1:1")
HERE = ("--no-auth", "--redis", "memory", "--port", "0", "--admin-port", "0")


def refused(*arguments: str, **env: str) -> str:
    """The line that the command ends with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FRIENDO")}
    kept.pop("RUNTIME_ENV", None)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", *arguments],
        cwd=ROOT,
        env={**kept, **env},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n")), done.stderr
    assert done.stderr.startswith("friendo serve: ")
    return done.stderr.removeprefix("friendo serve: ").rstrip()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_an_address_that_is_none_is_one_line() -> None:
    """Of a node, the first thing that people mistype."""
    told = refused(*HERE, "--node", "vllm=notaurl")

    assert told == "--node: expected a node's address like http://10.0.0.1:8000, got 'notaurl'"


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_port_in_use_is_one_line_with_its_option(taken: int, option: str) -> None:
    """It can be freed, or another one chosen."""
    told = refused(*HERE, *NODE, option, str(taken))

    setting = f"server.{option.removeprefix('--').replace('-', '_')}"
    assert told == (
        f"cannot listen on 127.0.0.1:{taken}: Address already in use; stop what listens there, "
        f"or choose another {option} (setting {setting})"
    )


@pytest.mark.parametrize(
    ("host", "why"),
    [("192.0.2.1", "Cannot assign requested address"), ("no-such-host.invalid", "there is no such host")],
)
def test_a_host_that_is_not_this_machine_is_one_line_with_its_setting(host: str, why: str) -> None:
    """The port is not to blame."""
    told = refused(*HERE, *NODE, "--set", f"server.host={host}")

    assert told == f"cannot listen on {host}:0: {why}; set server.host to an address of this machine"


def test_an_environment_without_a_file_is_one_line() -> None:
    """It names the places where it looked."""
    assert refused(RUNTIME_ENV="xyz").startswith("RUNTIME_ENV is xyz, but there is no xyz.yaml in ")


def test_an_embedded_store_never_shares_its_data(tmp_path: Path) -> None:
    """Two servers that append to one file would spoil it; whoever came first keeps it."""
    first = DataFolder(tmp_path / "friendo")
    first.open()
    try:
        told = refused(*NODE, "--no-auth", "--redis", "embedded", XDG_DATA_HOME=str(tmp_path))
    finally:
        first.close()

    assert told == (
        f"--redis embedded: process {os.getpid()} already keeps its data in {tmp_path}/friendo; "
        "stop it, or set XDG_DATA_HOME to another folder"
    )


def test_an_embedded_store_without_a_folder_is_one_line(tmp_path: Path) -> None:
    """Which folder, why, and what chooses another."""
    (tmp_path / "file").touch()
    told = refused(*NODE, "--no-auth", "--redis", "embedded", XDG_DATA_HOME=str(tmp_path / "file"))

    path = tmp_path / "file" / "friendo"
    assert told == (
        f"--redis embedded: cannot use {path}: Not a directory; set XDG_DATA_HOME to another folder"
    )
