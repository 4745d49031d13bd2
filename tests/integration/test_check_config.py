"""`friendo check-config` over the gateway's real settings, run as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A current directory with a good `config/dev.yaml`."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "dev.yaml").write_text(
        "server: {port: 7000}\nauth: {pepper: '${PEPPER}'}\nstore: {url: 'redis://me:hunter2@h/0'}\n"
        "nodes: [{engine: vllm, url: 'http://n:1', api_key: hunter2}]\n"
    )
    return tmp_path


def check(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FRIENDO")}
    kept.pop("RUNTIME_ENV", None)
    return subprocess.run(
        [sys.executable, "-m", "gateway", "check-config", *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_effective_settings_are_printed_without_secrets(folder: Path) -> None:
    """File, environment and command line in their order; what comes out is YAML again."""
    done = check(folder, "--set", "server.port=2", PEPPER="hunter2" * 5, FRIENDO__SERVER__ADMIN_PORT="3")

    assert done.returncode == 0
    shown = yaml.safe_load(done.stdout)
    assert (shown["server"]["port"], shown["server"]["admin_port"]) == (2, 3)
    assert shown["store"]["url"] == "redis://***@h/0"
    assert "hunter2" not in done.stdout + done.stderr


def test_every_mistake_is_printed_and_the_exit_code_is_1(folder: Path) -> None:
    """A missing secret and a misspelt variable, with the file's name, and nothing on standard output."""
    done = check(folder, FRIENDO__SERVER__PROT="1")

    expected = (
        f"{folder}/config/dev.yaml has 2 problems:\n"
        "  auth.pepper (line 2): needs the environment variable PEPPER, which is not set\n"
        "  server.prot (FRIENDO__SERVER__PROT): there is no such setting; did you mean server.port?\n"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert sorted(expected.splitlines()) == sorted(done.stderr.splitlines())


def test_values_that_could_only_fail_later_are_refused_by_their_path(folder: Path) -> None:
    """What `serve` would stumble over, all at once; what is no address is not taken for one."""
    (folder / "wrong.yaml").write_text(
        "server: {port: 99999, admin_port: -1, drain_s: .inf}\n"
        "store: {url: 'redis://me:hunter2@h:99999'}\n"
        "nodes:\n  - {engine: vllm, url: notaurl}\n  - {engine: vllm, url: 'http://me:hunter2@h'}\n"
    )

    done = check(folder, "wrong.yaml", FRIENDO__RELAY__IDLE_S="0")

    node = "expected a node's address like http://10.0.0.1:8000"
    keyless = f"{node}, without a user or password (a node's key goes into its api_key)"
    expected = [
        "wrong.yaml has 7 problems:",
        "  server.port (line 1): expected a port from 0 (a free one) to 65535, got 99999",
        "  server.admin_port (line 1): expected a port from 0 (a free one) to 65535, got -1",
        "  server.drain_s (line 1): expected a number from 0 to 86400, got inf",
        "  store.url (line 2): expected …, got 'redis://***@h:99999'",
        f"  nodes[0].url (line 4): {node}, got 'notaurl'",
        f"  nodes[1].url (line 5): {keyless}, got 'http://***@h'",
        "  relay.idle_s (FRIENDO__RELAY__IDLE_S): expected a number from 0.001 to 86400, got 0",
    ]
    assert (1, "") == (done.returncode, done.stdout)
    seen = re.sub(r"(store.url .*: expected ).*(, got)", r"\1…\2", done.stderr)
    assert sorted(expected) == sorted(seen.splitlines())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"server:\n\tport: 1\n", "line 2, column 1: not YAML: found character '\\t'"),
        (b"server: {port: 1", "not YAML: expected ',' or '}'"),
        (b"a\x00b", "not YAML: unacceptable character #x0000"),
        (b"\xff\xfe", "it cannot be read: it is not UTF-8 text"),
        (None, "it cannot be read: Is a directory"),
    ],
    ids=["tab", "unclosed", "null byte", "not text", "folder"],
)
def test_a_file_that_is_no_configuration_is_told_in_two_lines(
    folder: Path, content: bytes | None, says: str
) -> None:
    """Which file, and what is wrong with it; no traceback."""
    place = folder / "broken.yaml"
    place.mkdir() if content is None else place.write_bytes(content)

    done = check(folder, "broken.yaml")

    first, second = done.stderr.splitlines()
    assert (1, "broken.yaml has one problem:") == (done.returncode, first)
    assert says in second


def test_a_file_can_be_named(folder: Path) -> None:
    """RUNTIME_ENV is then not looked at."""
    other = folder / "other.yaml"
    other.write_text("server: {port: 5}")

    done = check(folder, "other.yaml", RUNTIME_ENV="nowhere")

    assert yaml.safe_load(done.stdout)["server"]["port"] == 5


def test_an_unknown_runtime_env_says_where_it_looked(folder: Path) -> None:
    """And which environments there are."""
    done = check(folder, RUNTIME_ENV="nowhere")

    assert (done.returncode, done.stdout) == (1, "")
    assert f"no nowhere.yaml in {folder}/config" in done.stderr
    assert "dev" in done.stderr.partition("Known environments: ")[2]
